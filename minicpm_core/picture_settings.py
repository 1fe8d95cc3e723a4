"""How pictures are read: the numbers that a call may change."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

MAX_FRAMES = 256
MAX_STACK = 10
MERGES = {"16x": 4, "4x": 2}
"""Patches per side of the square that becomes one token, by `downsample_mode`."""


@dataclass(frozen=True)
class PictureSettings:
    """How pictures are read, by the names of the official processors; None is what the checkpoint's own files say.

    Args:
        max_slice_nums: most tiles that a picture is cut into beside the view of the whole; 1 cuts nothing. More tiles
            show smaller writing and cost more tokens.
        downsample_mode: "16x", or "4x" for four times the tokens, where the family has it.
        use_image_id: whether the prompt tells each picture's number, where the family has it.
        max_num_frames: most frames that are taken from a video's file.
        stack_frames: frames of each second of a video's file: the first as it is, the others side by side in one
            picture behind it, where the family has it; 1 takes the first only.
        allow_private_urls: whether URLs may lead to private, loopback and link-local addresses.
    """

    max_slice_nums: int | None = None
    downsample_mode: str | None = None
    use_image_id: bool | None = None
    max_num_frames: int | None = None
    stack_frames: int | None = None
    allow_private_urls: bool = False

    def __post_init__(self) -> None:
        for name, most in (("max_slice_nums", 256), ("max_num_frames", MAX_FRAMES), ("stack_frames", MAX_STACK)):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most):
                raise ValueError(f"{name} is {value!r}; accepted: 1 to {most}")
        if self.downsample_mode not in (None, *MERGES):
            raise ValueError(f"downsample_mode is {self.downsample_mode!r}; accepted: {', '.join(MERGES)}")
        for name in ("use_image_id", "allow_private_urls"):
            if getattr(self, name) not in (None, True, False):
                raise ValueError(f"{name} is {getattr(self, name)!r}; accepted: True, False")

    def over(self, defaults: PictureSettings) -> PictureSettings:
        """Return these values, with those of `defaults` where they are None.

        Raises:
            ValueError: a value for something that the model does not have, which is None in `defaults`.
        """
        given = {f.name: v for f in fields(self) if (v := getattr(self, f.name)) is not None}
        if unknown := [name for name in given if getattr(defaults, name) is None]:
            has = ", ".join(f.name for f in fields(defaults) if getattr(defaults, f.name) is not None)
            raise ValueError(f"this model's pictures have no {', '.join(unknown)}; leave it out. They have: {has}")
        return replace(defaults, **given)

    def refuse_unseen(self) -> None:
        """Refuse settings of pictures for a model that reads text only.

        Raises:
            ValueError: one of them is set.
        """
        if given := [f.name for f in fields(self) if getattr(self, f.name) not in (None, False)]:
            raise ValueError(
                f"{', '.join(given)}: this model reads text only; leave out, or use a MiniCPM-V checkpoint"
            )
