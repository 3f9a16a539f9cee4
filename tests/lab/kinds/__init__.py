"""Traffic through load balancers, and between VPCs and the Internet: ways, faults, and what answers must say."""
