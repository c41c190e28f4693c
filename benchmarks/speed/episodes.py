"""How long 1,000 episodes take when the features are cached: CPU seconds, wall seconds and the memory of a process.

    python -m benchmarks.speed.episodes --root VOCdevkit/VOC2012 --backbone NAME [--shot 5] [--episodes 200]

Fewer episodes are run than 1,000 and scaled, after a few that warm up. CPU seconds divided by the cores is what two
idle cores would take; on a machine that others use too, wall seconds say more about them. Scoring at the query's own
resolution and the boundary F-score are included, starting the processes is not.
"""

import resource
import tempfile
import time
from pathlib import Path

import torch

from benchmarks.settings import arguments
from kshot import Segmenter
from kshot.data.base import load_dataset
from kshot.episodes.sampler import draw_episodes
from kshot.evaluation.episode import EpisodeRunner
from kshot.features import FeatureCache

_WARM = 3
_CORES = 2


def main() -> None:
    parser = arguments(__doc__, "root", "backbone", "cache", episodes=200)
    parser.add_argument("--method", default="density")
    parser.add_argument("--shot", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(1)
    data = load_dataset("voc", given.root)
    drawn = draw_episodes(data, "hsnet", 1, given.shot, given.episodes + _WARM, drop_small=True)
    segmenter = Segmenter(backbone=given.backbone, method=given.method, device="cpu")
    with tempfile.TemporaryDirectory() as temporary:
        cache = given.cache or Path(temporary)
        filler = FeatureCache(cache)
        runner = EpisodeRunner(segmenter, data, filler)
        for image in sorted({name for e in drawn for name in (e.query, *e.supports[0])}):
            runner.features(image)
        runner = EpisodeRunner(segmenter, data, FeatureCache(cache))
        for n in range(_WARM):
            runner.run(drawn[n])
        wall, cpu = time.perf_counter(), time.process_time()
        for n in range(_WARM, len(drawn)):
            runner.run(drawn[n])
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    scale = 1000 / given.episodes
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"1-way {given.shot}-shot, {given.method}, {given.episodes} episodes, {runner.forwards} forward passes")
    print(f"1,000 episodes: {scale * cpu:.0f} CPU s, {scale * cpu / _CORES:.0f} s on {_CORES} idle cores")
    print(f"one process here: {scale * wall:.0f} s by the wall, {memory:.2f} GiB at most")


if __name__ == "__main__":
    main()
