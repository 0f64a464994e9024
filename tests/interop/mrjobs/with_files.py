"""Words without those of two lists: files beside the job, options of every kind."""

import os

from mrjob.compat import jobconf_from_env
from mrjob.job import MRJob


class MRWithFiles(MRJob):
    FILES = ("stop.txt",)
    SORT_VALUES = True

    def configure_args(self):
        super().configure_args()
        self.add_file_arg("--more-stop")
        self.add_passthru_arg("--upper", action="store_true")
        self.add_passthru_arg("--also", action="append", default=[])

    def mapper_init(self):
        self.stop = set(self.options.also)
        for name in ("stop.txt", self.options.more_stop):
            with open(name, encoding="utf-8") as file:
                self.stop.update(file.read().split())

    def mapper(self, _, line):
        name = os.path.basename(jobconf_from_env("mapreduce.map.input.file"))
        for word in line.split():
            if word not in self.stop:
                yield word.upper() if self.options.upper else word, name

    def reducer(self, word, names):
        yield word, sorted(set(names))


if __name__ == "__main__":
    MRWithFiles.run()
