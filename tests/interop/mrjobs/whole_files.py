"""How many words a file has: mapper_raw, which is given files and not lines."""

from mrjob.job import MRJob


class MRWholeFiles(MRJob):
    def mapper_init(self):
        self.increment_counter("mine", "files", 1)

    def mapper_raw(self, path, uri):
        with open(path, encoding="utf-8") as file:
            words = file.read().split()
        yield uri.rpartition("/")[2], len(words)
        for word in words:
            yield word, 1

    def mapper_final(self):
        yield "files", 1

    def combiner(self, word, counts):
        yield word, sum(counts)

    def reducer(self, word, counts):
        yield word, sum(counts)


if __name__ == "__main__":
    MRWholeFiles.run()
