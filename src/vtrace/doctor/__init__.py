"""`vtrace doctor`: looks at a host before the first color, and changes nothing."""
