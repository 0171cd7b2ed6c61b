"""Checks of the contract of a method, which run in seconds on synthetic images and without a GPU.

`hashbench check-method NAME` runs them. The test file of a method is

    import pytest
    from hashbench.testing import CHECKS, MethodUnderTest

    METHOD = MethodUnderTest("mine")  # for a plugin file, first call registry.add_plugin_file(path)

    @pytest.mark.parametrize("check", CHECKS)
    def test_contract(check):
        CHECKS[check](METHOD)
"""

from hashbench.testing.checks import CHECKS, CheckResult, check_method
from hashbench.testing.method_under_test import MethodUnderTest

Subject = MethodUnderTest  # its former name, which test files of methods import

__all__ = ["CHECKS", "CheckResult", "MethodUnderTest", "Subject", "check_method"]
