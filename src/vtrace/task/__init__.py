"""Accept, admit, schedule and expire a diagnosis task."""
