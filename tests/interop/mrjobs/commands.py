"""Word count by commands, and a step behind it that reads what they have written."""

from mrjob.job import MRJob
from mrjob.step import MRStep


class MRCommands(MRJob):
    def steps(self):
        return [
            MRStep(
                mapper_cmd="tr -s ' ' '\\n'",
                combiner_cmd="cat",
                reducer_cmd="awk '{n[$1]++} END {for (w in n) print w \"\\t\" n[w]}'",
            ),
            MRStep(mapper=self.turn, reducer_cmd="tr a-z A-Z"),
        ]

    def turn(self, _, line):
        word, _, count = line.partition("\t")
        yield int(count), word


if __name__ == "__main__":
    MRCommands.run()
