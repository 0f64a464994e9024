"""Campaigns: workloads under faults, on processes or in virtual time, and what came of them."""
