"""What a bad check says against a robust accuracy, read from the checks' own words."""

import pandas as pd
import pytest
import torch
from torch import nn
from victims import convolutional, images

from helpers import attack_health, doubts

N = 16
SEVERAL = [*doubts.SEVERAL]
PGD = [None, "pgd_ce", "pgd_kl"]


class Rounded(nn.Module):
    """A network that sees `share` of its images, the first ones, through a front that cuts the gradient."""

    def __init__(self, share):
        super().__init__()
        self.net, self.n = convolutional(), round(share * N)

    def forward(self, x):
        return self.net(torch.cat([torch.round(x[: self.n] * 15) / 15, x[self.n :]]))


def said(finding, attack):
    return doubts.blind(finding.name, finding.message, attack=attack)


@pytest.mark.parametrize("share", [1.0, 0.25, 1 / N])
@pytest.mark.parametrize("attack", [*PGD, *SEVERAL])
def test_missing_gradients_count_the_images_that_miss_them_whatever_the_attack(share, attack):
    net = Rounded(share)
    x = images(N)
    finding = attack_health.gradients(net, x, net(x).argmax(1))
    assert (finding.ok, said(finding, attack)) == (False, share)


def test_saturated_logits_blind_cross_entropy_but_not_the_attacks_on_the_margin():
    net, x = convolutional(dtype=torch.float32), images(N, dtype=torch.float32)
    with torch.no_grad():
        net[-1].weight.mul_(1e5)
        net[-1].bias.mul_(1e5)
    finding = attack_health.gradients(net, x, net(x).argmax(1))
    share = finding.numbers["zero_share_cross_entropy"]
    assert share > 0.5
    assert [said(finding, one) for one in (*PGD, *SEVERAL)] == [share] * 3 + [0] * 2


def test_what_stands_where_nothing_can_counts_against_the_attack_that_was_tried():
    finding = attack_health.large_radius(torch.arange(10) < 3, epsilon=0.55)
    assert [said(finding, one) for one in (*PGD, *SEVERAL)] == [0.3] * 3 + [0] * 2
    assert doubts.short(finding.message) == "3 of 10 images stand within 0.55"


def test_random_outputs_count_in_full():
    net = convolutional()
    noisy = nn.Sequential(net, nn.Dropout(0.5))
    noisy.forward = lambda x: net(x) + torch.rand(len(x), 1) * torch.arange(5)
    finding = attack_health.outputs_repeat(noisy, images(N))
    assert (finding.ok, [said(finding, one) for one in (*PGD, *SEVERAL)]) == (False, [1.0] * 5)


def test_checks_that_compare_attacks_or_have_no_direction_are_no_doubt():
    none, every = torch.zeros(N, dtype=torch.bool), torch.ones(N, dtype=torch.bool)
    findings = [
        attack_health.black_box(every, none),
        attack_health.black_box(every, none, name="black box (Square)"),
        attack_health.transfer(every, none),
        attack_health.zero_radius(every, none),
        attack_health.falls_with_epsilon({0.0: every, 0.1: every}),
        attack_health.logits(torch.full((N, 4), 0.25)),
    ]
    assert not any(one.ok for one in findings)
    assert not any(said(one, attack) for one in findings for attack in (*PGD, *SEVERAL))


def test_of_several_the_largest_is_told_and_it_is_at_most_the_accuracy():
    blind = "the margin's gradient is 0 on {} of 4 images: gradient attacks stand still there; use Square"
    grey = "3 of 10 images stand within 0.5, where every image can be made the same grey: the attack fails"
    rows = [("a", "gradients", False, blind.format(1)), ("a", "large radius", False, grey)]
    rows += [("a", "gradients", True, "no image has a zero gradient"), ("b", "gradients", False, blind.format(4))]
    findings = pd.DataFrame(rows, columns=["network", "check", "ok", "message"])

    def against(*networks, accuracy=60.0, attack=None):
        return doubts.against(findings, networks, attack=attack, accuracy=accuracy)

    assert against("a") == doubts.Doubt(pytest.approx(30), "a: large radius, 3 of 10 images stand within 0.5")
    assert against("a", attack="worst").points == 25
    assert against("a", accuracy=12.0).points == 12
    assert against("a", "b").why == "b: gradients, the margin's gradient is 0 on 4 of 4 images"
    assert against("b").points == 60
    assert (against("c"), against("b", accuracy=0.0)) == (None, None)
