"""`[model.LLM.data_location]`: where a run's tokens come from.

Every source but `Dummy` is sealed by `manifest`: the blob id of its data manifest, which names the length and
hash of every shard (`psyche_train.data.manifest`). It is 64 digits however large the data are, so that it fits
the specification on chain; the manifest itself lies beside the data, or is a blob that peers have.
`TrainSpec.resolve` fills it in; members refuse other bytes.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from psyche_train.spec.tables import OneOf, Sha256Hex, Table

TokenSize = Literal["OneByte", "TwoBytes", "FourBytes"]

MAX_WEIGHT_SUM = 65_536
MAX_SOURCES = 32

_Path = Annotated[str, Field(min_length=1, max_length=512)]
_Url = Annotated[str, Field(max_length=1024, pattern=r"^[a-z][a-z0-9+]*://[^\s]+$")]
_Fraction = Annotated[float, Field(gt=0, le=0.5)]
_Tokenizer = Annotated[str, Field(min_length=1, max_length=512)]
_Column = Annotated[str, Field(min_length=1, max_length=128)]


class StdlibData(Table):
    """Bytes of the Python standard library's source on this machine, one token a byte."""

    max_bytes: int = Field(default=2_000_000, ge=10_000, le=100_000_000)
    manifest: Sha256Hex = ""
    """Of the creator's text; members whose library differs get it from peers."""
    validation_fraction: _Fraction = 0.05
    python: str = Field(default="", max_length=32)
    """Version whose library was hashed, for the error message of a machine that has another."""


class LocalData(Table):
    """Token files that every member has: raw little-endian (`.bin`) or one-dimensional arrays (`.npy`)."""

    path: _Path
    """A file; or a folder, whose files are taken in the order of their names, or prepared data."""
    token_size_in_bytes: TokenSize | None = None
    """Width of a token in `.bin` files (two bytes by default); `.npy` files and manifests say their own."""
    manifest: Sha256Hex = ""
    validation_fraction: _Fraction = 0.05


class NumberedUrls(Table):
    """Files whose URLs differ in a number."""

    url_template: Annotated[str, Field(max_length=1024, pattern=r"^[a-z][a-z0-9+]*://[^\s{}]*\{\}[^\s{}]*$")]
    """With `{}` where the number goes."""
    start_index: int = Field(default=0, ge=0, lt=10**9)
    n_left_pad_zeros: int = Field(default=0, ge=0, le=9)
    """Digits that a number has at least."""
    num_files: int = Field(ge=1, le=100_000)


class HttpLocation(OneOf):
    """Which files."""

    Folder: _Url | None = None
    """A folder that `psyche-train prepare-data` wrote: its manifest says how many shards there are."""
    SingleUrl: _Url | None = None
    Urls: list[_Url] | None = Field(default=None, min_length=1, max_length=64)
    NumberedFiles: NumberedUrls | None = None

    @property
    def urls(self) -> list[str] | None:
        """The files in order; None where the manifest has to say how many there are."""
        if self.SingleUrl is not None:
            return [self.SingleUrl]
        if (files := self.NumberedFiles) is not None:
            numbers = range(files.start_index, files.start_index + files.num_files)
            return [files.url_template.replace("{}", f"{n:0{files.n_left_pad_zeros}}") for n in numbers]
        return self.Urls

    @property
    def folder(self) -> str:
        """URL of the folder in which `manifest.json` is looked for, with its slash."""
        if self.Folder is not None:
            return self.Folder.rstrip("/") + "/"
        urls = self.urls
        assert urls is not None
        return urls[0].partition("?")[0].rpartition("/")[0] + "/"


class HttpData(Table):
    """`.bin` files on a web server (or, through fsspec, in a bucket: `gs://`, `s3://`), fetched piece by piece."""

    location: HttpLocation
    token_size_in_bytes: TokenSize | None = None
    """Width of a token where no `manifest.json` says it; two bytes by default."""
    manifest: Sha256Hex = ""
    validation_fraction: _Fraction = 0.05


class HubData(Table):
    """A Hugging Face data set, read as a stream and tokenised once into the local cache."""

    repo_id: _Path
    """Name on the Hub, or a folder in the Hub's layout."""
    name: str = Field(default="", max_length=128)
    """Configuration of the data set, where it has several."""
    split: Annotated[str, Field(min_length=1, max_length=64)] = "train"
    revision: str = Field(default="", max_length=64)
    column: _Column = "text"
    """Of texts, which the tokenizer cuts, or of lists of tokens."""
    tokenizer: _Tokenizer = "bytes"
    """`bytes`, a tokenizer of the Hub, or a path of a `tokenizer.json` or of a folder with one."""
    max_tokens: int = Field(default=0, ge=0, lt=2**40)
    """Stop after the document that reaches so many; 0: take all."""
    manifest: Sha256Hex = ""
    """Of the resulting tokens."""
    validation_fraction: _Fraction = 0.05


class ParquetData(Table):
    """Parquet files that every member has, converted once into the local cache."""

    path: _Path
    """A file, or a folder whose `.parquet` files are taken in the order of their names."""
    column: _Column = "text"
    """Of texts, which the tokenizer cuts, or of lists of tokens."""
    labels_column: _Column | None = None
    """With `sequences`: targets as long as the tokens; -100 where nothing is to be learned."""
    sequences: bool = False
    """Rows are whole samples, padded to `max_seq_len + 1`; else they are documents that follow each other."""
    tokenizer: _Tokenizer = "bytes"
    manifest: Sha256Hex = ""
    validation_fraction: _Fraction = 0.05

    @model_validator(mode="after")
    def _labels_need_sequences(self) -> Self:
        if self.labels_column is not None and not self.sequences:
            raise ValueError("labels_column is there, so sequences = true is needed")
        return self


class PeersData(Table):
    """Prepared data that members fetch from each other by hash; whoever has them serves them."""

    path: str = Field(default="", max_length=512)
    """Folder of prepared data, where a member has it (`join --data` names another); the creator needs it."""
    manifest: Sha256Hex = ""
    validation_fraction: _Fraction = 0.05


class DummyData(Table):
    """Invented tokens with a pattern that can be learned, for tests."""

    num_tokens: int = Field(default=1_000_000, ge=1000, le=10_000_000)
    validation_fraction: _Fraction = 0.05


FixedSource = StdlibData | LocalData | HttpData | HubData | ParquetData | PeersData | DummyData


class _Fixed(OneOf):
    """Exactly one source that is no mixture."""

    Stdlib: StdlibData | None = None
    Local: LocalData | None = None
    Http: HttpData | None = None
    Hub: HubData | None = None
    Parquet: ParquetData | None = None
    Peers: PeersData | None = None
    Dummy: DummyData | None = None


class WeightedSource(_Fixed):
    """One part of a mixture."""

    weight: int = Field(ge=1, le=MAX_WEIGHT_SUM)
    """Samples of this source among every `sum of the weights`."""

    @property
    def chosen(self) -> FixedSource:
        """The sub-table that is there."""
        chosen: FixedSource = getattr(self, self.kind)
        return chosen


class WeightedData(Table):
    """A mixture: the samples of several sources, interleaved in fixed proportions."""

    sources: list[WeightedSource] = Field(min_length=2, max_length=MAX_SOURCES)

    @model_validator(mode="after")
    def _weights_are_small(self) -> Self:
        total = sum(source.weight for source in self.sources)
        if total > MAX_WEIGHT_SUM:
            raise ValueError(
                f"the weights sum to {total}, allowed is up to {MAX_WEIGHT_SUM}: use smaller ones"
            )
        return self


class DataLocation(_Fixed):
    """Where the training tokens come from."""

    Weighted: WeightedData | None = None

    @property
    def chosen(self) -> FixedSource | WeightedData:
        """The sub-table that is there."""
        chosen: FixedSource | WeightedData = getattr(self, self.kind)
        return chosen

    @property
    def sources(self) -> list[tuple[int, FixedSource]]:
        """`(weight, source)` of every part; one part of weight 1 where it is no mixture."""
        chosen = self.chosen
        if isinstance(chosen, WeightedData):
            return [(source.weight, source.chosen) for source in chosen.sources]
        return [(1, chosen)]

    def with_sources(self, sources: list[FixedSource]) -> DataLocation:
        """The same location with its parts replaced, in order."""
        if self.Weighted is None:
            return self.model_copy(update={self.kind: sources[0]})
        parts = [
            part.model_copy(update={part.kind: source})
            for part, source in zip(self.Weighted.sources, sources, strict=True)
        ]
        return self.model_copy(update={"Weighted": self.Weighted.model_copy(update={"sources": parts})})
