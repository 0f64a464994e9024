"""What clients do during a campaign: one small file for each kind of promise that is tried."""
