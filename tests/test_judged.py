"""Verdicts and PGD's points on a network that is known, and that a longer run begins as a shorter one."""

import bottlenecks
import torch

from helpers import judged

IMAGES, MARGIN = bottlenecks.images()
BALL = {"attack": "pgd_ce", "norm": "linf", "epsilon": 0.1, "step_size": 0.02, "seed": 0}


def test_right_is_image_by_image():
    net, x = bottlenecks.network(), IMAGES.images()
    swapped = x.flip(3)[..., [2, 3, 0, 1]]  # the two pixels that decide, the other way round
    assert judged.right(net, x, IMAGES.labels, batch_size=16).all()
    assert not judged.right(net, swapped, IMAGES.labels, batch_size=16).any()
    half = torch.cat([x[:20], swapped[20:]])
    assert judged.right(net, half, IMAGES.labels, batch_size=7).tolist() == [True] * 20 + [False] * 20


def test_points_are_the_last_of_one_start_and_a_longer_run_begins_as_a_shorter_one():
    net, seen = bottlenecks.network(), {}
    last = judged.pgd(net, IMAGES, n_steps=6, batch_size=40, **BALL, callback=lambda k, x, said: seen.update({k: x}))
    assert last.equal(seen[6])
    assert (last - IMAGES.images()).abs().max() <= 0.1 + 1e-6
    assert judged.pgd(net, IMAGES, n_steps=3, batch_size=40, **BALL).equal(seen[3])
    clear = (MARGIN - 0.1).abs() > 4e-3
    long = judged.pgd(net, IMAGES, n_steps=20, batch_size=40, **BALL)
    right = torch.from_numpy(judged.right(net, long, IMAGES.labels, batch_size=40))
    assert right[clear].equal((MARGIN > 0.1)[clear])
