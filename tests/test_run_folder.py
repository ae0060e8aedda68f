"""The folder of an evaluation: parts come back whole or not at all, other evaluations are refused by name."""

import numpy as np
import pytest
import torch
from torch import nn

from helpers import run_folder

CONFIG = {"format": 1, "network": "abc", "norm": "linf", "epsilon": 0.03, "attacks": ["apgd_ce"]}
ROWS = np.array([2, 5, 7])


def part(rows=ROWS):
    return {"rows": rows, "adversarial": torch.rand(2, 1, 2, 2, generator=torch.Generator().manual_seed(0))}


def test_a_part_comes_back_as_it_was(tmp_path):
    with run_folder.opened(tmp_path / "new" / "deep", CONFIG) as parts:
        assert parts.read(0, 0, ROWS) is None
        parts.write(3, 1, part())
    with run_folder.opened(tmp_path / "new" / "deep", CONFIG) as parts:
        back = parts.read(3, 1, ROWS)
        assert np.array_equal(back["adversarial"], part()["adversarial"].numpy())
        assert parts.read(3, 0, ROWS) is None


def test_a_damaged_part_is_computed_again_and_said(tmp_path, capsys):
    with run_folder.opened(tmp_path, CONFIG) as parts:
        parts.write(0, 0, part())
        path = tmp_path / "000-0000.npz"
        path.write_bytes(path.read_bytes()[:-30])
        assert parts.read(0, 0, ROWS) is None
        assert "000-0000.npz is computed again" in capsys.readouterr().err
        parts.write(0, 0, part(np.array([1])))
        assert parts.read(0, 0, ROWS) is None
        assert "it is of other images" in capsys.readouterr().err


def test_another_evaluation_is_refused_with_every_difference(tmp_path):
    with run_folder.opened(tmp_path, CONFIG):
        pass
    other = CONFIG | {"epsilon": 0.06, "network": "xyz"}
    message = r"network: 'abc' there, 'xyz' here; epsilon: 0.03 there, 0.06 here"
    with pytest.raises(ValueError, match=message), run_folder.opened(tmp_path, other):
        pass
    with (
        pytest.raises(ValueError, match=r"seed: None there, 3 here"),
        run_folder.opened(tmp_path, CONFIG | {"seed": 3}),
    ):
        pass
    with run_folder.opened(tmp_path, CONFIG):  # and the refusals left it usable
        pass


def test_parts_without_their_config_are_refused(tmp_path):
    with run_folder.opened(tmp_path, CONFIG) as parts:
        parts.write(0, 0, part())
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match="damaged one"), run_folder.opened(tmp_path, CONFIG):
        pass


def test_one_process_at_a_time(tmp_path):
    with (
        run_folder.opened(tmp_path, CONFIG),
        pytest.raises(RuntimeError, match="another process is using it"),
        run_folder.opened(tmp_path, CONFIG),
    ):
        pass
    with run_folder.opened(tmp_path, CONFIG):
        pass


def test_digests_see_every_change():
    a = torch.zeros(2, 3)
    changed = [a, a.double(), a.reshape(3, 2), a + torch.eye(3)[:2], a.long()]
    assert len({run_folder.digest(t) for t in changed}) == len(changed)
    assert run_folder.digest(a) == run_folder.digest(a.clone())
    assert run_folder.digest(a.T) == run_folder.digest(a.T.contiguous())


def test_network_digests_see_weights_buffers_and_structure():
    def net(stride=1):
        torch_net = nn.Sequential(nn.Conv2d(1, 2, 3, stride=stride), nn.BatchNorm2d(2))
        with torch.no_grad():
            for p in torch_net.parameters():
                p.zero_()
        return torch_net

    plain, weights, buffers = net(), net(), net()
    weights[0].weight.data[0, 0, 0, 0] = 1e-7
    buffers[1].running_mean[1] = 0.5
    digests = [run_folder.network_digest(n) for n in (plain, weights, buffers, net(stride=2))]
    assert len(set(digests)) == 4
    assert digests[0] == run_folder.network_digest(net())
