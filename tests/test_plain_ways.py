"""The plain ways do what ours do, or a comparison would mean nothing."""

import torch
from attack_cases import EPSILON, convolutional, middle

from helpers import models, plain_ways, starts


def test_batch_norm_as_a_layer_of_its_own_is_the_same_function():
    torch.manual_seed(0)
    ours = models.build("smallcnn", num_classes=10, in_channels=1, image_size=16, width=4)
    x = torch.rand(8, 1, 16, 16)
    ours(x)  # so that its averages are no longer 0 and 1
    ours.eval()
    theirs = plain_ways.layered(ours).eval()
    with torch.no_grad():
        assert (theirs(x) - ours(x)).abs().max() < 1e-5
    calls = []
    for name, module in theirs.named_modules():
        if type(module).__name__ == "BatchNorm2d":
            module.register_forward_hook(lambda *_, name=name: calls.append(name))
    theirs(x)
    assert len(calls) == 3  # ours calls none: they are folded
    assert sum(p.numel() for p in theirs.parameters()) == sum(p.numel() for p in ours.parameters())


def test_the_plain_attack_stays_in_the_ball_and_raises_the_loss():
    net, x = convolutional(), middle(torch.float32, 16)
    with torch.no_grad():
        y = net(x).argmax(1)
    torch.manual_seed(0)
    x_adv = plain_ways.pgd(net, x, y, epsilon=EPSILON, step_size=EPSILON / 4, n_steps=5)
    assert (x_adv - x).abs().max() <= EPSILON + 1e-6
    assert x_adv.min() >= 0
    assert x_adv.max() <= 1
    with torch.no_grad():
        loss = torch.nn.functional.cross_entropy
        assert loss(net(x_adv), y) > loss(net(x), y)


def test_a_plain_step_of_training_moves_the_weights():
    net = convolutional()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    x = middle(torch.float32, 8)
    before = net[0].weight.clone()
    loss = plain_ways.training_step(
        net, optimizer, x, torch.zeros(8, dtype=torch.int64), epsilon=EPSILON, step_size=EPSILON / 4, n_steps=2
    )
    assert loss > 0
    assert net.training
    assert not torch.equal(net[0].weight, before)


def test_draws_one_at_a_time_have_the_law_of_their_class():
    generator = torch.Generator().manual_seed(0)
    pixels = [torch.randint(80, 170, (40, 1, 2, 2), generator=generator, dtype=torch.uint8) for _ in range(2)]
    laws = plain_ways.gaussians(pixels, jitter_std=starts.SANTURKAR_JITTER_STD, device=torch.device("cpu"))
    torch.manual_seed(0)
    n = 2000
    drawn = plain_ways.class_gaussian(laws, torch.ones(n, dtype=torch.int64), (1, 2, 2)).flatten(1)
    wanted = pixels[1].flatten(1).float() / 255
    assert ((drawn.mean(0) - wanted.mean(0)).abs() < 4 * wanted.std(0) / n**0.5).all()


def test_sums_over_components_stay_on_their_directions():
    mean, directions = torch.full((1, 4), 0.5).double(), torch.zeros(1, 2, 4)
    directions[0, 0, 0], directions[0, 1, 3] = 0.05, 9.0
    torch.manual_seed(0)
    x = plain_ways.class_pca(mean, directions, torch.tensor([1]), torch.zeros(50, dtype=torch.int64), (1, 2, 2))
    assert (x.flatten(1)[:, 1:] == 0.5).all()  # one component is kept, and it moves the first pixel alone
    assert 0.03 < x.flatten(1)[:, 0].std() < 0.07
