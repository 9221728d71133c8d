"""What a command does about cells that fail: the same for every launcher."""

from __future__ import annotations

from dataclasses import dataclass

from trainlarge.config.launcher import LauncherConfig


@dataclass(frozen=True)
class FailurePolicy:
    """How often a cell is tried again, and when to stop starting jobs."""

    retries: int = 0
    """How often a failed cell is tried again."""
    max_failures: int = 0
    """Cells that have failed for good after which no job is started; 0: no limit."""
    fail_fast: bool = False
    """One failed cell is enough, and jobs that run are asked to stop."""

    @classmethod
    def of(cls, launcher: LauncherConfig) -> FailurePolicy:
        """The policy that the configuration group ``launcher`` asks for."""
        return cls(launcher.retries, launcher.max_failures, launcher.fail_fast)

    def stop_reason(self, failed: int) -> str | None:
        """Why no job is started any more once ``failed`` cells have failed for good; None while jobs may start."""
        if self.fail_fast and failed:
            return f"{_cells_have(failed)} failed, and launcher.fail_fast stops all others"
        if self.max_failures and failed >= self.max_failures:
            return f"{_cells_have(failed)} failed, and launcher.max_failures={self.max_failures}"
        return None


def _cells_have(count: int) -> str:
    return "1 cell has" if count == 1 else f"{count} cells have"
