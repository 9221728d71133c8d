# The public names of trainlarge, each with the module that defines it. This is the only list of them.
from trainlarge.compression.grid import compress as compress
from trainlarge.compression.stored.packing import load_packed as load_packed
from trainlarge.compression.stored.packing import save_packed as save_packed
from trainlarge.config.prune import Magnitude as Magnitude
from trainlarge.config.quantize import Uniform as Uniform
from trainlarge.config.recipe import Recipe as Recipe
from trainlarge.errors import UserError as UserError
from trainlarge.results.frames import StudyFrames as StudyFrames
from trainlarge.results.frames import load_study as load_study

__version__: str
