"""Traffic that leaves its VPC: to a customer's data center by a vBRouter, to another VPC by a transit switch."""
