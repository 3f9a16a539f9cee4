"""Adapters to Open vSwitch: the only code that speaks OpenFlow and unixctl."""
