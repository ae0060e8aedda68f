"""What a run costs, in one line before it starts. No torch."""

from helpers import jobs, parameters
from helpers.jobs import Job


def of_profile(profile: str, notebooks: list[str]) -> str:
    """One line: what the profile is and what a cold run of it costs."""
    facts = parameters.profile_facts(profile)
    minutes, some = facts["minutes"], len(notebooks) < len(parameters.notebooks(profile))
    took = f"about {minutes:g} minute{'' if minutes == 1 else 's'}"
    took = took if minutes < 120 else f"about {minutes / 60:.3g} hours"
    took += " for all notebooks" if some else ""
    words = [took, f"{facts['memory_gb']:g} GB of memory a job", f"{facts['disk_gb']:g} GB of disk"]
    words.append(f"{facts['download_gb']:g} GB of downloads" if facts["download_gb"] else "no downloads")
    return f"Profile {profile}: {facts['title']}. Cold: {', '.join(words)}."


def of_sweep(planned: list[Job]) -> str:
    """One line: how many points there are and what they cost, from what they took before or the notebook takes."""
    points = [job for job in planned if job.point]
    seconds = sum(jobs.expected_seconds(job) or 0.0 for job in points)
    took = f": about {max(1, round(seconds / 60))} min of work" if seconds else ""
    return f"Sweep {planned[-1].name}: {len(points)} points of {points[0].name} in profile {points[0].profile}{took}."
