# SPDX-License-Identifier: Apache-2.0
"""Detections before the next image exists: its expected time, and its forecast."""

from dataclasses import dataclass, replace
from statistics import median

from .detector import Detector, StepResult
from .policy import AlternatePolicy
from .settings import DetectorSettings, SettingsError
from .stream import MAX_GAP_S, StreamState
from ..errors import cut
from ..images.frame import Frame, FrameError, Pixels

FEWEST_GAPS = 3  #: Below it one dropped frame could pass for the period

#: Of which the median is taken: it stands up to four drops without a trace, and follows a camera
#: that changes its rate within five frames.
MOST_GAPS = 9

_LONGEST = 1000  #: Forecasts in a row: more than any setting allows


@dataclass(frozen=True)
class Period:
    """The time between the images of one camera, from their stamps; a value, never changed."""

    stamp_ns: int | None = None  #: Of the last image
    gaps_ns: tuple[float, ...] = ()  #: Between the last images, at most `MOST_GAPS`

    def after(self, stamp_ns: int, dropped: int = 0, max_gap_s: float = MAX_GAP_S) -> 'Period':
        """
        Give the period after an image.

        :param stamp_ns: of the image, nanoseconds. One that repeats the last stamp tells nothing.
        :param dropped: images that were sent in between and never came
        :param max_gap_s: seconds; a stamp before the last one, or further behind it, makes the
            period unknown again, as it loses a stream's state
        """
        step = -1 if self.stamp_ns is None else stamp_ns - self.stamp_ns
        if not 0 <= step <= round(max_gap_s * 1e9):
            return Period(stamp_ns)
        if not step:
            return self
        return Period(stamp_ns, (*self.gaps_ns, step / (1 + dropped))[-MOST_GAPS:])

    @property
    def known_ns(self) -> int | None:
        """Give the median of the gaps, nanoseconds; None before there are `FEWEST_GAPS`."""
        return round(median(self.gaps_ns)) if len(self.gaps_ns) >= FEWEST_GAPS else None


def check_ahead(detector: Detector) -> None:
    """Raise SettingsError if the detector would only repeat its last boxes under a later stamp."""
    config = detector.card.network
    if not config.forecasts:
        raise SettingsError(
            f'publish_ahead is true, but {cut(detector.card.name)} forecasts nothing: its '
            f'variant is {config.variant}; set publish_ahead to false, or take a checkpoint that '
            'forecasts')


def look_ahead(detector: Detector, state: StreamState, settings: DetectorSettings,
               elapsed: float) -> StepResult:
    """
    Forecast what a camera will show, whatever will be decided when its image is there.

    :param detector, settings: as for `Detector.step`; policy and limits play no part
    :param state: of the stream after its last frame; it goes on from there as if nothing had been
        asked
    :param elapsed: time from that frame on, above 0, in the unit of the stream's times
    :returns: its detections have the numbers of the stream's objects, and -1 where a box fits none
    :raises ValueError: if the stream has no frame yet
    """
    if state.network is None:
        raise ValueError('nothing can be forecast before the first frame')
    forced = replace(settings, policy=AlternatePolicy(_LONGEST),
                     max_consecutive_forecasts=_LONGEST)
    result, _ = detector.step(Frame(state.frame_size, _no_picture),
                              replace(state, consecutive_forecasts=0), forced, elapsed)
    ids = state.tracks.recognise(result.detections, elapsed)
    return replace(result, detections=replace(result.detections, ids=ids))


def _no_picture() -> Pixels:
    raise FrameError('the picture does not exist yet')
