"""The commit of the code that the fork server has imported, which all jobs that it starts run."""

from trainlarge.machine.provenance import code

code()
