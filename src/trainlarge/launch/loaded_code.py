"""Imported by the fork server before the code of the stages: which commit that is, for all jobs that come from it."""

from trainlarge.machine.provenance import code

code()
