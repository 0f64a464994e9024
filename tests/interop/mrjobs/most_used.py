"""The words that are used most: two steps, options, counters."""

import time
from pathlib import Path

from mrjob.job import MRJob
from mrjob.step import MRStep


class MRMostUsed(MRJob):
    def configure_args(self):
        super().configure_args()
        self.add_passthru_arg("--least", type=int, default=1)
        self.add_passthru_arg("--gate", default="")

    def steps(self):
        return [
            MRStep(mapper_init=self.begin, mapper=self.words, combiner=self.add, reducer=self.add),
            MRStep(mapper=self.swap, reducer=self.most),
        ]

    def begin(self):
        self.increment_counter("mine", "maps", 1)
        while self.options.gate and not Path(self.options.gate).exists():
            time.sleep(0.01)

    def words(self, _, line):
        for word in line.split():
            yield word, 1

    def add(self, word, counts):
        yield word, sum(counts)

    def swap(self, word, count):
        if count >= self.options.least:
            yield None, (count, word)

    def most(self, _, pairs):
        for count, word in sorted(pairs, reverse=True):
            yield word, count


if __name__ == "__main__":
    MRMostUsed.run()
