"""Words of lines that are no comment: a filter before mapper, combiner and reducer each."""

from mrjob.job import MRJob


class MRFiltered(MRJob):
    def mapper_pre_filter(self):
        return "tr A-Z a-z | grep -v '^#'"

    def mapper(self, _, line):
        for word in line.split(" "):
            yield word, 1

    def combiner_pre_filter(self):
        return "grep -v rare"

    def combiner(self, word, counts):
        yield word, sum(counts)

    def reducer_pre_filter(self):
        return "grep -v two"

    def reducer(self, word, counts):
        yield word, sum(counts)


if __name__ == "__main__":
    MRFiltered.run()
