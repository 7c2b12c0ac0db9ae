# SPDX-License-Identifier: Apache-2.0
"""The picture of what accuracy costs: recall over milliseconds per frame."""
from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .figure_files import new_figure, save_figure
from .prices import OWN, PEER, Price, TIME_ONLY

#: A grey whose contrast is about 4.5 on white and 4.2 on a page in dark mode.
INK = '#767676'
OWN_COLOUR, PEER_COLOUR = '#3b82f6', '#e0701a'
ALWAYS = 'always_read'
SIZE_INCHES = (7.0, 4.4)


def draw_prices(prices: Sequence[Price], path: Path) -> None:
    """
    Draw recall over milliseconds as PNG, on a transparent ground.

    The points of a detector under several policies are joined. Detectors of which only the time
    is known are lines.

    :raises EvaluationError: if matplotlib is missing
    """
    figure = new_figure(*SIZE_INCHES)
    axes: Any = figure.subplots()
    for name in dict.fromkeys(price.name for price in prices if price.group == OWN):
        points = sorted((price for price in prices if price.name == name
                         and price.recall is not None), key=lambda price: price.ms)
        axes.plot([price.ms for price in points], [_points(price) for price in points],
                  color=OWN_COLOUR, linewidth=1.2)
        for price in points:
            axes.plot(price.ms, _points(price), color=OWN_COLOUR, markersize=8,
                      marker='s' if price.policy == ALWAYS else 'o')
        if points:
            _name(axes, points[-1], OWN_COLOUR)
    for price in prices:
        if price.group == PEER and price.recall is not None:
            axes.plot(price.ms, _points(price), color=PEER_COLOUR, marker='D', markersize=8)
            _name(axes, price, PEER_COLOUR)
        elif price.group == TIME_ONLY:
            axes.axvline(price.ms, color=PEER_COLOUR, linestyle=':', linewidth=1.4)
            axes.annotate(f'{price.name}: time alone', (price.ms, 0.02), rotation=90,
                          xycoords=('data', 'axes fraction'), xytext=(-3, 0), fontsize=7,
                          textcoords='offset points', ha='right', va='bottom', color=PEER_COLOUR)
    _legend(axes)
    axes.set_xlabel('ms per frame, one thread')
    axes.set_ylabel('recall, %')
    axes.set_xlim(left=0)
    axes.margins(x=0.12, y=0.12)
    _tint(axes)
    save_figure(figure, path, 'none')


def _points(price: Price) -> float:
    return 100 * (price.recall or 0.0)


def _name(axes: Any, price: Price, colour: str) -> None:
    axes.annotate(price.name, (price.ms, _points(price)), xytext=(7, 5), fontsize=8,
                  textcoords='offset points', color=colour)


def _legend(axes: Any) -> None:
    for marker, colour, text in (('s', OWN_COLOUR, 'this package, every frame read'),
                                 ('o', OWN_COLOUR, 'this package, the policy it comes with'),
                                 ('D', PEER_COLOUR, 'others, every frame read')):
        axes.plot([], [], marker=marker, color=colour, linestyle='', label=text)
    axes.legend(loc='best', labelcolor=INK)


def _tint(axes: Any) -> None:
    """Draw axes and texts in a grey that shows on white and on black."""
    axes.tick_params(colors=INK)
    axes.xaxis.label.set_color(INK)
    axes.yaxis.label.set_color(INK)
    axes.grid(color=INK, alpha=0.25)
    for spine in axes.spines.values():
        spine.set_color(INK)
    axes.set_facecolor('none')
