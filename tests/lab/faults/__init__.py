"""An independent injector of faults: what is true is known from it, never from `vtrace diagnose`."""
