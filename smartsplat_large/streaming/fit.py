"""Fit all Gaussians of an image: from what sampling found, or from where an earlier run came to."""

from __future__ import annotations

from smartsplat_large.config import FitConfig
from smartsplat_large.fitting.optimizer import AdamState
from smartsplat_large.gaussians import Gaussians
from smartsplat_large.ordering import by_place
from smartsplat_large.progress import Progress
from smartsplat_large.render.base import BlockRenderer
from smartsplat_large.source.base import ImageSource
from smartsplat_large.streaming.background import above
from smartsplat_large.streaming.checkpoint import Checkpoint
from smartsplat_large.streaming.descent import Descent
from smartsplat_large.streaming.plan import FitPlan
from smartsplat_large.streaming.solve import solve_colors
from smartsplat_large.streaming.state import (
    Account,
    Best,
    Place,
    fitted_snapshot,
    start_snapshot,
)
from smartsplat_large.streaming.workers import Workers


def fit_gaussians(
    source: ImageSource,
    renderer: BlockRenderer,
    initial: Gaussians,
    plan: FitPlan,
    config: FitConfig,
    workers: Workers,
    progress: Progress,
    kept_bytes: int = 0,
    checkpoint: Checkpoint | None = None,
    budget_bytes: int | None = None,
) -> Best:
    """Take ``config.steps`` Adam steps from ``initial`` and return the best state met at full size.

    With ``budget_bytes``, moves of budget change the number of Gaussians to what a file of that size pays for.
    ``initial`` has the colours of the picture, whatever the renderer's background.
    Pixels are read again at every step, except those that ``kept_bytes`` of memory can hold.

    ``source`` must hold all levels of ``plan``. The same arguments give the same result for any number of workers, and
    whether it is done at once or by going on from what ``checkpoint`` resumes; its stage must then fit ``initial``.
    """
    checkpoint = checkpoint or Checkpoint.none(progress)
    resumed = checkpoint.take_resumed()
    stage = None if resumed is None else resumed.stage
    if stage is None:
        initial = above(initial.chosen(by_place(initial.xy)), renderer.background)
    if resumed is not None and stage == "fitted":
        return _finished(resumed.best, checkpoint)
    if stage in (None, "sampled"):
        initial = _solved(source, renderer, initial, plan, config, workers, progress, checkpoint)
    if resumed is not None and stage == "descent":
        state, best, place, account = (
            resumed.adam_state(config.optimizer), resumed.best, resumed.place, resumed.account,
        )  # fmt: skip
        progress.note(f"going on after {place.taken} of {config.steps} steps")
    else:
        checkpoint.hold(lambda: start_snapshot("solved", initial))
        checkpoint.commit_if_due()
        state, place = AdamState.start(initial, plan.size, config.optimizer), Place()
        best, account = Best(state.all_gaussians()), Account()
    progress.start("fit", config.steps - place.taken, "steps", plan.costs(place.taken))
    descent = Descent(
        source, renderer, plan, config, workers, progress, checkpoint, kept_bytes, budget_bytes, state, best, place, account
    )  # fmt: skip
    checkpoint.hold(descent.snapshot)
    # The descent replaces them: it must be the only one to keep them alive.
    del resumed, initial, state, best, account
    descent.run()
    return _finished(descent.best, checkpoint)


def _solved(
    source: ImageSource, renderer: BlockRenderer, initial: Gaussians, plan: FitPlan, config: FitConfig, workers: Workers,
    progress: Progress, checkpoint: Checkpoint,
) -> Gaussians:  # fmt: skip
    """``initial`` with the colours that suit the coarsest level best, where the settings want them solved for."""
    checkpoint.hold(lambda: start_snapshot("sampled", initial))
    checkpoint.commit_if_due()
    iterations = config.solve_iterations
    if not iterations:
        return initial
    progress.start("solving colours", iterations, "iterations")
    return solve_colors(source, renderer, initial, plan.block, plan.coarsest, iterations, workers, progress)


def _finished(best: Best, checkpoint: Checkpoint) -> Best:
    """``best``, which from now on is what an interrupt commits: its file is still to be made."""
    checkpoint.hold(lambda: fitted_snapshot(best))
    checkpoint.commit_if_due(landmark=True)
    return best
