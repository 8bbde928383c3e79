"""What other packages test their drivers with: `FakeDriver` as an example, `DriverConformance` as the kit.

from netplug.testing import DriverConformance

class TestMyDriver(DriverConformance):
    def make_driver(self):
        return MyDriver()
"""

from netplug.testing.conformance import DriverConformance, example_endpoint, example_network, example_sandbox
from netplug.testing.fake import FakeDriver

__all__ = ["DriverConformance", "FakeDriver", "example_endpoint", "example_network", "example_sandbox"]
