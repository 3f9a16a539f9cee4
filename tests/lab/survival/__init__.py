"""The survival matrix: what happens to a task, and to tenants, when something around it dies, hangs or vanishes."""
