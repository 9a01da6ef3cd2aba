"""Where work runs: processes of this machine, shares of processes that never meet, and clusters, behind one interface.

Small networks gain little from a second thread, so that two jobs side by side are nearly twice as fast as one after the other. What
trains or measures hands its jobs to the executor of the moment (`current`), and the results are the same bits wherever they run. A
`Shard` says which of the work a process takes that another one shares with it, and `spread` decodes a stream of pieces.
"""

from limbeck.runtime.executor.current import current as current
from limbeck.runtime.executor.current import using as using
from limbeck.runtime.executor.environment import PLACES as PLACES
from limbeck.runtime.executor.environment import cores as cores
from limbeck.runtime.executor.environment import put_environment as put_environment
from limbeck.runtime.executor.interface import Cluster as Cluster
from limbeck.runtime.executor.interface import Executor as Executor
from limbeck.runtime.executor.interface import Process as Process
from limbeck.runtime.executor.interface import Tick as Tick
from limbeck.runtime.executor.local import Local as Local
from limbeck.runtime.executor.local import side_by_side as side_by_side
from limbeck.runtime.executor.local import workers_wait as workers_wait
from limbeck.runtime.executor.shards import Shard as Shard
from limbeck.runtime.executor.streams import spread as spread
from limbeck.runtime.executor.ticks import Ticks as Ticks
from limbeck.runtime.executor.ticks import ticks as ticks
