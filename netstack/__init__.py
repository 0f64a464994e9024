"""From bits on a wire to remote calls: what every daemon speaks. See the READMEs of the layers."""
