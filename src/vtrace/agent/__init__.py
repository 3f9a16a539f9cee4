"""What runs for one chassis: it surveys the bridge, installs and removes entries, logs, and inspects on the spot."""
