"""The program ``trainlarge``, also as ``python -m trainlarge``."""

from __future__ import annotations

import sys

from trainlarge.launch.safe_path import leave_working_directory


def main() -> int:
    """Run one verb of the command line, importing nothing from the working directory."""
    leave_working_directory()
    # Imported only now: what it imports must not be found in the working directory.
    from trainlarge import cli

    return cli.main()


if __name__ == "__main__":
    sys.exit(main())
