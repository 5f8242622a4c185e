"""Mirror: a stand-in for several processes, of which all others have the same values as this one."""

import numpy

from minidl import devices
from minidl.distributed import Communicator


class Mirror(Communicator):
    """Sums are so many times what this process has; what was begun, and ended, is noted.

    A sum is there only when somebody has waited for it: what reads it too early reads what was sent.
    """

    def __init__(self, size, rank=0):
        self.size, self.rank, self.local_size = size, rank, size
        self.log = []
        self.progressed = 0

    def begin_sum(self, array):
        number = sum(kind == "begin" for kind, *_ in self.log)
        self.log.append(("begin", number, array.nbytes))
        sent = numpy.array(devices.to_numpy(array))

        def finish():
            assert (devices.to_numpy(array) == sent).all(), "somebody wrote into a message on its way"
            devices.write(array, devices.to_device(sent * self.size, devices.device_of(array)))
            self.log.append(("end", number, array.nbytes))

        return finish

    def progress(self):
        if any(kind == "begin" for kind, *_ in self.log):
            self.progressed += 1

    def gather(self, value):
        return [value] * self.size
