"""Programs that measure agentflow beside the raw limit, in the same run; `make bench` runs them."""
