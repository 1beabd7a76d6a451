"""Made-up ratings in the files and columns of MovieLens-100K, which may not be passed on."""

from pathlib import Path

import numpy as np

GENRES = ("Heist", "Opera", "Robots", "Sea", "Western")


def write(
    folder: Path, users: int = 12, items: int = 30, ratings: int = 300, seed: int = 0
) -> Path:
    """Writes `ml-100k.inter`, `.user` and `.item` with several ratings in many a second."""
    rng = np.random.default_rng(seed)
    taste, quality = rng.normal(size=users), rng.normal(size=items)
    lines = ["user_id:token\titem_id:token\trating:float\ttimestamp:float"]
    for _ in range(ratings):
        user, item = int(rng.integers(users)), int(rng.integers(items))
        rating = int(np.clip(round(3.5 + taste[user] + quality[item]), 1, 5))
        second = 880_000_000 + int(rng.integers(ratings // 3)) * 5000
        lines.append(f"{user + 1}\t{item + 1}\t{rating}\t{second}")
    (folder / "ml-100k.inter").write_text("\n".join(lines) + "\n")
    lines = ["user_id:token\tage:token\tgender:token\toccupation:token\tzip_code:token"]
    for user in range(users):
        zip_code = "Q1W2E" if user == 3 else f"{int(rng.integers(100000)):05}"
        lines.append(f"{user + 1}\t{18 + 3 * user}\t{'FM'[user % 2]}\tjob{user % 4}\t{zip_code}")
    (folder / "ml-100k.user").write_text("\n".join(lines) + "\n")
    lines = ["item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq"]
    for item in range(items):
        genres = " ".join(rng.permutation(GENRES)[: int(rng.integers(4))])
        year = "V" if item == 2 else str(1950 + item)
        lines.append(f"{item + 1}\tTitle\x85{item}\t{year}\t{genres}")
    (folder / "ml-100k.item").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder
