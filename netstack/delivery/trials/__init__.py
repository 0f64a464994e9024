"""The strategies on trial, in virtual time: every one under every fault. See ../README.md."""
