"""Numbers that are part of a recipe's hash: raise one, and the networks that it touches are trained anew. No torch."""

# When an objective's loss changes; a test with golden losses holds the two together.
OBJECTIVE_VERSIONS: dict[str, int] = {
    "standard": 1,
    "madry": 1,
    "trades": 1,
    "weat_nat": 1,
    "weat_adv": 1,
    "mail_trades": 1,
    "mart": 1,
    "fgsm_rs": 1,
    "jem": 1,
    "ceb": 1,
    "vib": 1,
}

# When helpers/removal.py chooses other training images to leave out.
REMOVAL_VERSION = 1
