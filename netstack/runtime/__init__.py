"""What a daemon stands on: clock, dice, socket, disk and log, real or simulated. See README.md."""
