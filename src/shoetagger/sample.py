"""Draws the demo's shoes: pictures that differ in the 19 tags, and their label sheet.

`python -m shoetagger.sample data` writes data/images/ and data/labels.csv.
"""

from __future__ import annotations

import argparse
import csv
import io
import os
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter
from tqdm import tqdm

from .errors import ShoetaggerError

COLORS = ("black", "white", "red", "blue", "tan", "grey", "brown")
STYLES = ("boot", "heel", "sneaker", "sandal", "flat", "studded", "loafer")
DETAILS = ("patterned", "above_ankle", "below_ankle", "shiny", "leather")
TAGS = (*COLORS, *STYLES, *DETAILS)

Array = np.ndarray
Color = tuple[float, float, float]

_FINE = 3  # drawn this much larger, then reduced, for smooth edges


# --- Silhouettes -------------------------------------------------------------------------------
# Outlines in SVG's path language (absolute M, L, C, Z), toe to the left. A shoe is about 850
# units long and stands on y = 800.


@dataclass(frozen=True)
class _Shape:
    """One silhouette: outlines from back to front, and the curves that details follow."""

    upper: tuple[str, ...]  # what carries the colour
    sole: tuple[str, ...]
    heel: tuple[str, ...] = ()  # covered like the upper, but darker
    far: tuple[str, ...] = ()  # of the upper, on the side away from us
    inside: tuple[str, ...] = ()  # the lining that shows in the opening
    panels: tuple[str, ...] = ()  # on the upper; take the second colour where there is one
    trims: tuple[str, ...] = ()  # on the upper, in the main colour: bows, straps, pull tabs
    gores: tuple[str, ...] = ()  # elastic, always dark
    seams: tuple[str, ...] = ()
    creases: tuple[str, ...] = ()
    studs: tuple[str, ...] = ()
    laces: str = ""  # the curve that they cross
    metal: tuple[str, ...] = ()  # buckles and bits, as curves
    tall: bool = False  # has a shaft that may be longer or shorter
    pale_sole: bool = False


_BOOT_SOLE = (
    "M 82 732 C 60 740 56 784 86 798 L 560 800 C 590 800 606 784 640 782 L 662 782 L 664 800 "
    "L 898 800 C 914 780 914 750 904 732 C 700 748 300 748 82 732 Z"
)
_BOOT_OPENING = "M 462 230 C 520 190 760 186 822 224 C 760 244 540 250 462 230 Z"
_BOOT_CREASES = (
    "M 330 606 C 350 640 352 668 340 700",
    "M 385 585 C 412 625 418 655 408 690",
    "M 470 470 C 530 500 600 506 660 496",
    "M 476 420 C 540 448 610 452 680 440",
)
_CHELSEA = _Shape(
    upper=(
        "M 90 742 C 76 690 104 640 185 618 C 270 598 365 570 425 500 C 462 452 468 350 462 230 "
        "C 560 250 720 250 822 224 C 842 380 858 480 888 590 C 902 650 904 700 898 742 Z",
    ),
    sole=(_BOOT_SOLE,),
    inside=(_BOOT_OPENING,),
    panels=("M 920 760 L 690 760 C 690 660 740 590 800 560 C 840 540 880 530 930 530 Z",),
    trims=("M 800 236 L 802 168 C 806 156 832 156 836 168 L 846 240 Z",),
    gores=("M 570 244 L 706 244 C 706 340 696 430 652 510 C 602 440 576 340 570 244 Z",),
    seams=(
        "M 690 742 C 692 660 740 590 800 560 C 830 545 855 536 874 532",
        "M 560 240 C 566 350 596 450 652 524",
        "M 716 240 C 714 350 702 440 652 524",
        "M 652 524 C 640 600 600 680 560 742",
        "M 96 716 C 300 728 700 728 896 716",
    ),
    creases=_BOOT_CREASES,
    studs=("M 120 704 C 300 716 700 716 880 704", "M 480 272 C 560 290 720 290 812 268"),
    tall=True,
)
_COMBAT = replace(
    _CHELSEA,
    panels=(
        "M 60 770 L 60 600 C 140 600 210 606 240 630 C 262 670 262 710 250 770 Z",
        "M 920 760 L 730 760 C 730 680 760 620 800 590 C 840 570 880 560 930 560 Z",
    ),
    trims=(
        "M 300 604 C 365 580 425 540 455 470 C 475 400 475 330 468 232 L 556 244 "
        "C 566 340 556 430 526 510 C 496 570 430 620 360 650 C 330 640 310 620 300 604 Z",
    ),
    gores=(),
    seams=(
        "M 556 246 C 566 340 556 430 526 510 C 496 570 430 620 360 650",
        "M 238 628 C 262 670 262 710 250 742",
        "M 730 742 C 730 680 760 620 800 590 C 830 574 856 566 878 562",
        "M 96 716 C 300 728 700 728 896 716",
        "M 556 330 C 640 338 760 334 832 318",
    ),
    laces="M 352 606 C 420 570 462 510 484 440 C 502 380 506 320 502 262",
)
_CHUKKA = replace(
    _COMBAT,
    upper=(
        "M 90 742 C 76 690 104 645 185 626 C 280 606 370 580 430 525 C 458 500 466 478 470 450 "
        "C 560 482 730 482 850 440 C 862 510 876 560 888 610 C 902 660 904 700 898 742 Z",
    ),
    inside=("M 470 450 C 540 410 770 402 850 440 C 770 474 560 482 470 450 Z",),
    panels=("M 920 760 L 640 760 C 610 650 560 580 480 540 L 470 430 L 930 420 Z",),
    trims=(),
    seams=(
        "M 640 742 C 612 650 560 580 470 540",
        "M 96 716 C 300 728 700 728 896 716",
        "M 486 486 C 580 512 730 512 852 478",
    ),
    creases=_BOOT_CREASES[:2],
    studs=("M 120 704 C 300 716 700 716 880 704",),
    laces="M 400 570 C 440 548 475 520 500 490",
    tall=False,
)

_PUMP_SOLE = (
    "M 66 776 C 54 800 90 812 200 812 L 340 810 C 460 810 575 772 662 700 C 750 636 830 612 905 "
    "622 L 905 600 C 830 594 745 618 650 684 C 560 754 450 794 330 796 C 220 800 110 798 66 776 Z"
)
_STILETTO = (
    "M 908 600 C 916 660 886 720 880 806 L 852 806 C 852 720 826 660 742 636 C 800 604 860 596 "
    "908 600 Z"
)
_BLOCK = (
    "M 908 600 C 914 680 904 740 902 806 L 764 806 C 766 740 756 690 724 648 C 790 604 860 594 "
    "908 600 Z"
)
_WEDGE = (
    "M 908 600 C 912 680 906 740 904 808 L 320 808 C 470 804 570 766 655 690 C 750 622 830 594 "
    "908 600 Z"
)
_PUMP = _Shape(
    upper=(
        "M 68 786 C 70 748 148 712 230 680 C 272 662 308 640 332 630 C 352 650 400 682 470 676 "
        "C 570 664 640 590 720 512 C 770 462 812 412 846 384 C 872 368 896 380 902 412 "
        "C 914 482 918 545 908 612 C 830 606 745 628 655 692 C 565 764 455 802 330 802 "
        "C 220 808 100 808 68 786 Z",
    ),
    sole=(_PUMP_SOLE,),
    heel=(_STILETTO,),
    inside=(
        "M 332 630 C 400 610 520 570 610 510 C 700 450 770 400 846 384 C 820 430 770 470 720 512 "
        "C 640 590 570 664 470 676 C 400 682 352 650 332 630 Z",
    ),
    panels=("M 40 820 L 40 690 C 140 690 210 690 240 676 C 262 710 262 770 250 830 Z",),
    seams=(
        "M 344 650 C 372 676 420 700 480 692 C 580 676 650 600 730 526 C 780 476 820 430 862 398",
        "M 700 640 C 720 600 740 560 752 506",
    ),
    creases=("M 330 700 C 352 726 356 750 348 780", "M 392 706 C 416 728 420 748 412 776"),
    studs=(
        "M 350 668 C 400 704 470 706 540 672 C 620 620 700 548 780 476 C 820 440 850 420 880 410",
        "M 110 770 C 180 752 260 752 330 768",
    ),
)
_BALLET = _Shape(
    upper=(
        "M 74 776 C 70 736 130 710 215 690 C 275 674 325 655 372 648 C 395 646 410 660 428 676 "
        "C 500 725 640 720 740 680 C 800 655 840 618 868 592 C 885 580 900 592 905 620 "
        "C 914 680 912 740 904 784 L 100 788 C 82 788 76 784 74 776 Z",
    ),
    sole=(
        "M 70 770 C 62 792 78 804 110 804 L 560 804 C 620 800 660 796 700 796 L 704 804 L 892 804 "
        "C 910 800 910 782 908 768 C 700 786 300 790 70 770 Z",
    ),
    inside=(
        "M 372 648 C 450 612 560 612 640 618 C 740 622 820 600 868 592 C 840 640 790 668 740 684 "
        "C 640 724 500 728 428 678 C 410 660 395 648 372 648 Z",
    ),
    panels=("M 40 820 L 40 690 C 140 680 220 684 262 676 C 290 710 290 770 280 830 Z",),
    trims=(
        "M 382 662 C 340 600 292 606 300 646 C 306 676 350 672 382 662 Z",
        "M 382 662 C 424 606 470 610 462 646 C 456 674 420 674 382 662 Z",
        "M 366 650 C 376 640 392 640 400 650 C 404 664 398 676 384 678 C 370 678 362 664 366 650 Z",
    ),
    seams=(
        "M 420 690 C 500 744 640 738 750 698 C 810 674 850 640 876 612",
        "M 800 780 C 806 730 806 690 796 664",
    ),
    creases=("M 286 700 C 308 724 312 750 304 776", "M 344 690 C 366 716 370 744 362 770"),
    studs=(
        "M 420 696 C 500 748 640 742 750 702 C 810 678 846 648 880 628",
        "M 110 764 C 180 736 260 728 350 720",
    ),
)
_LOAFER = _Shape(
    upper=(
        "M 84 748 C 74 700 110 655 200 628 C 300 598 385 560 440 505 C 470 478 500 470 520 486 "
        "C 545 540 600 575 690 560 C 770 545 820 510 850 490 C 872 478 888 486 894 515 "
        "C 906 600 910 680 904 750 Z",
    ),
    sole=(
        "M 76 738 C 58 748 58 784 80 796 L 590 798 C 610 798 620 782 640 780 L 660 780 L 662 804 "
        "L 902 804 C 916 785 916 755 908 740 C 700 756 300 756 76 738 Z",
    ),
    inside=(
        "M 520 486 C 590 448 760 452 850 490 C 800 540 740 560 680 564 C 600 574 550 540 520 486 Z",
    ),
    panels=(
        "M 322 606 C 385 565 430 530 456 498 L 528 546 C 506 610 490 680 488 756 L 392 756 "
        "C 386 690 368 640 322 606 Z",
    ),
    seams=(
        "M 128 700 C 160 662 230 652 320 634 C 400 616 450 590 484 548",
        "M 140 716 C 172 680 236 668 324 650",
        "M 318 612 C 366 644 382 692 388 748",
        "M 534 548 C 512 612 496 680 494 750",
        "M 96 728 C 300 740 700 740 896 728",
        "M 780 742 C 786 660 796 600 812 530",
    ),
    creases=("M 268 650 C 290 676 294 704 286 732", "M 318 660 C 338 684 342 708 336 734"),
    studs=(
        "M 130 704 C 170 664 236 656 316 642",
        "M 540 560 C 600 606 700 600 780 568 C 830 546 858 530 884 526",
    ),
)
_BIT_LOAFER = replace(
    _LOAFER,
    panels=("M 930 760 L 720 760 C 720 680 744 610 790 570 C 830 540 880 520 930 510 Z",),
    seams=(*_LOAFER.seams[:2], _LOAFER.seams[4], "M 720 742 C 720 680 744 610 790 560"),
    metal=(
        "M 366 592 L 474 540",
        "M 352 586 C 372 572 392 590 380 606 C 366 620 342 606 352 586",
        "M 464 530 C 484 516 504 534 492 550 C 478 564 454 550 464 530",
    ),
)
_SNEAKER_SEAMS = (
    "M 200 640 C 232 668 240 700 236 740",
    "M 322 600 C 380 640 420 690 436 740",
    "M 720 742 C 716 680 744 610 800 566 C 830 546 856 536 878 532",
)
_SNEAKER = _Shape(
    upper=(
        "M 88 742 C 78 690 110 655 180 640 C 270 622 350 575 430 505 L 500 440 C 515 425 545 425 "
        "560 446 C 590 500 640 520 700 512 C 760 505 800 470 815 440 C 830 425 865 430 872 450 "
        "C 880 520 905 640 900 742 Z",
    ),
    sole=(
        "M 78 730 C 56 742 54 790 90 802 L 880 802 C 916 802 922 760 906 728 C 700 746 300 746 "
        "78 730 Z",
    ),
    far=(
        "M 470 470 C 470 420 486 378 530 366 C 566 360 590 384 586 430 L 560 470 Z",  # tongue
    ),
    inside=(
        "M 556 446 C 610 400 770 396 815 440 C 800 470 760 505 700 512 C 640 520 590 500 556 446 Z",
    ),
    panels=(
        "M 50 770 L 50 600 L 190 620 C 232 668 240 700 236 770 Z",
        "M 920 770 L 720 770 C 716 680 744 610 800 566 C 840 546 880 530 920 520 Z",
        "M 476 742 L 590 560 L 640 560 L 536 742 Z",
        "M 586 742 L 676 580 L 716 572 L 640 742 Z",
    ),
    trims=(
        "M 318 604 C 360 576 400 540 430 505 L 500 440 C 514 428 540 426 556 442 L 572 500 "
        "C 520 560 440 620 372 652 C 340 640 322 622 318 604 Z",
    ),
    seams=(
        *_SNEAKER_SEAMS,
        "M 572 502 C 520 562 440 622 372 654",
        "M 96 722 C 300 734 700 734 892 722",
    ),
    creases=("M 268 640 C 292 668 298 694 292 724", "M 318 634 C 344 664 350 694 344 724"),
    studs=("M 576 548 C 640 580 760 570 866 500", "M 260 716 C 420 728 600 728 720 722"),
    laces="M 366 606 C 420 572 476 520 520 470",
    pale_sole=True,
)
_RUNNER = replace(
    _SNEAKER,
    sole=(
        "M 70 732 C 40 748 48 796 90 804 L 880 804 C 940 790 944 716 914 684 C 840 696 760 730 600 "
        "738 C 400 746 200 748 70 732 Z",
        "M 60 780 C 60 796 74 804 90 804 L 880 804 C 900 800 914 788 920 776 C 700 790 300 792 60 "
        "780 Z",
    ),
    panels=(
        _SNEAKER.panels[0],
        "M 920 770 L 760 770 C 760 700 770 640 810 600 C 850 570 880 560 920 560 Z",
        "M 430 700 C 500 660 600 640 740 560 C 700 650 600 716 480 742 C 440 750 410 730 430 700 Z",
    ),
)
_HIGH_TOP = replace(
    _SNEAKER,
    upper=(
        "M 88 742 C 78 690 110 655 180 640 C 270 622 360 575 430 490 C 462 440 470 360 476 290 "
        "C 486 268 520 262 548 274 C 600 300 720 300 790 262 C 815 250 842 258 846 284 "
        "C 858 420 905 600 900 742 Z",
    ),
    far=("M 480 330 C 474 270 478 214 520 200 C 560 194 580 220 578 276 L 560 330 Z",),
    inside=("M 546 276 C 600 226 760 222 806 262 C 780 290 620 310 546 276 Z",),
    panels=(
        _SNEAKER.panels[0],
        "M 920 770 L 720 770 C 716 680 744 600 790 540 C 830 510 880 500 920 500 Z",
        "M 640 372 C 690 372 706 410 704 436 C 700 470 670 488 640 486 C 606 484 586 456 588 426 "
        "C 592 394 612 372 640 372 Z",
    ),
    trims=(
        "M 300 606 C 370 575 430 515 452 450 C 470 400 474 340 478 288 C 490 268 520 264 546 276 "
        "C 556 360 548 440 520 510 C 490 570 430 620 370 650 C 334 644 312 626 300 606 Z",
    ),
    seams=(
        *_SNEAKER_SEAMS[::2],
        "M 550 280 C 560 360 552 440 524 512 C 494 572 434 622 374 652",
        "M 556 330 C 640 346 760 340 850 316",
        "M 96 722 C 300 734 700 734 892 722",
    ),
    creases=(*_SNEAKER.creases, "M 560 520 C 640 540 720 536 790 516"),
    studs=("M 566 356 C 640 372 760 366 848 342", "M 260 716 C 420 728 600 728 720 722"),
    laces="M 356 610 C 420 576 462 520 484 450 C 500 400 508 350 510 300",
    tall=True,
)
_FLAT_SANDAL = _Shape(
    upper=(
        "M 168 764 C 176 700 214 650 296 634 L 372 660 C 318 690 300 722 300 766 Z",
        "M 424 762 C 424 664 466 590 540 552 L 606 586 C 548 622 524 684 524 760 Z",
        "M 814 744 C 830 650 846 560 848 470 L 902 462 C 914 560 918 660 908 752 Z",
        "M 556 516 C 622 560 766 540 888 462 L 898 516 C 784 598 640 616 552 570 Z",
    ),
    sole=(
        "M 66 778 C 56 752 90 738 150 742 C 300 752 520 752 700 732 C 790 722 860 720 908 734 "
        "C 930 746 924 790 902 800 L 100 802 C 80 802 70 792 66 778 Z",
    ),
    far=(
        "M 296 634 L 372 660 C 404 690 414 720 416 752 L 352 752 C 346 710 330 672 296 634 Z",
        "M 540 552 L 606 586 C 654 640 672 690 674 742 L 612 748 C 612 684 592 620 540 552 Z",
        "M 556 516 C 640 436 780 424 888 462 L 880 494 C 780 464 664 472 588 540 Z",
    ),
    studs=(
        "M 200 742 C 212 700 246 668 320 654",
        "M 456 738 C 462 670 496 616 566 576",
        "M 580 562 C 660 586 780 560 880 494",
    ),
    seams=(
        "M 186 752 C 196 700 232 664 300 650",
        "M 444 750 C 446 674 484 606 548 572",
        "M 570 546 C 640 580 770 560 884 484",
        "M 100 768 C 300 778 700 766 900 756",
    ),
    metal=("M 690 540 L 744 524 L 756 572 L 702 588 L 690 540",),
)
_HEELED_SANDAL = replace(
    _FLAT_SANDAL,
    upper=(
        "M 136 776 C 150 706 204 652 290 640 L 366 664 C 306 696 286 730 284 784 Z",
        "M 838 590 C 858 500 866 400 868 306 L 912 298 C 926 400 928 500 914 606 Z",
        "M 596 340 C 662 392 790 372 900 298 L 908 344 C 804 426 670 442 592 392 Z",
    ),
    sole=(
        "M 64 784 C 54 764 90 750 140 754 L 330 762 C 450 762 550 728 640 656 C 740 582 830 552 "
        "908 566 L 910 614 C 830 606 745 630 655 694 C 565 766 455 806 330 808 C 220 814 90 814 "
        "64 784 Z",
    ),
    heel=(_STILETTO,),
    far=(
        "M 290 640 L 366 664 C 404 690 418 724 420 752 L 358 760 C 350 716 330 676 290 640 Z",
        "M 596 340 C 670 268 800 258 900 298 L 890 326 C 800 296 690 306 624 366 Z",
    ),
    studs=("M 172 752 C 190 704 236 670 310 660", "M 616 388 C 690 420 800 392 896 326"),
    seams=("M 156 764 C 174 706 224 668 296 656", "M 606 370 C 680 408 800 382 898 314"),
    metal=("M 700 376 L 748 364 L 758 408 L 710 420 L 700 376",),
)
_HEELED_BOOT = _Shape(
    upper=(
        "M 68 786 C 70 748 130 712 215 676 C 330 628 430 560 470 470 C 500 390 500 300 492 190 "
        "C 600 212 740 212 838 186 C 850 300 862 400 902 500 C 918 550 916 590 908 614 "
        "C 830 606 745 630 655 694 C 565 764 455 802 330 802 C 220 808 100 808 68 786 Z",
    ),
    sole=(_PUMP_SOLE,),
    heel=(_BLOCK,),
    inside=("M 492 190 C 560 152 770 148 838 186 C 770 210 570 214 492 190 Z",),
    panels=("M 40 820 L 40 690 C 140 660 230 640 290 640 C 330 690 330 770 310 830 Z",),
    trims=("M 480 436 C 600 470 760 462 874 424 L 886 464 C 770 506 600 514 466 478 Z",),
    seams=(
        "M 700 214 C 704 340 700 460 684 560 C 672 620 656 660 640 696",
        "M 290 644 C 330 690 330 756 318 796",
        "M 496 216 C 600 238 740 238 842 212",
    ),
    creases=(
        "M 330 640 C 360 676 366 712 356 752",
        "M 400 600 C 434 640 440 676 430 716",
        "M 482 540 C 560 566 640 566 700 548",
    ),
    studs=(
        "M 480 460 C 600 494 760 486 872 448",
        "M 110 772 C 180 754 260 754 340 770",
        "M 500 240 C 600 260 740 260 842 236",
    ),
    metal=("M 640 462 L 700 462 L 700 508 L 640 508 L 640 462",),
    tall=True,
)
_PLAIN_HEELED_BOOT = replace(
    _HEELED_BOOT, trims=(), metal=(), studs=_HEELED_BOOT.studs[1:], heel=(_STILETTO,)
)


_WIDE_SHADOW = (
    "M 50 806 C 200 770 800 770 930 800 C 960 830 800 852 480 850 C 200 852 20 840 50 806 Z"
)
_CONTACT_SHADOW = (
    "M 80 800 C 200 792 800 792 904 800 C 904 814 700 820 480 820 C 260 820 80 816 80 800 Z"
)


def _choose_shape(tags: frozenset[str], rng: np.random.Generator) -> _Shape:
    """Return a silhouette; a combination that no shoe has gives the nearest that there is."""

    def one(*shapes: _Shape) -> _Shape:
        return shapes[rng.integers(len(shapes))]

    heels = (_STILETTO, _BLOCK, _WEDGE)
    above = "above_ankle" in tags
    if "sneaker" in tags:
        return _HIGH_TOP if above else one(_SNEAKER, _RUNNER)
    if "sandal" in tags:
        if "heel" in tags:
            return replace(_HEELED_SANDAL, heel=(heels[rng.integers(3)],))
        return _FLAT_SANDAL
    if "boot" in tags or above:
        if "heel" in tags:
            return replace(one(_HEELED_BOOT, _PLAIN_HEELED_BOOT), heel=(heels[rng.integers(2)],))
        return _CHUKKA if "below_ankle" in tags else one(_CHELSEA, _COMBAT)
    if "loafer" in tags:
        return one(_LOAFER, _BIT_LOAFER)
    if "flat" in tags:
        return replace(_BALLET, trims=_BALLET.trims if rng.random() < 0.6 else ())
    return replace(_PUMP, heel=(heels[rng.choice(3, p=[0.6, 0.25, 0.15])],))


def _curve(path: str) -> Array:
    """Return the points (N, 2) of an outline; Bézier curves become 20 short lines each."""
    points: list[Array] = []
    numbers: list[float] = []
    command = ""
    t = np.linspace(0, 1, 21)[1:, None]
    for token in path.split():
        if token.isalpha():
            command = token
            continue
        numbers.append(float(token))
        if command in "ML" and len(numbers) == 2:
            points.append(np.array([numbers]))
            numbers = []
        elif command == "C" and len(numbers) == 6:
            a, (b, c, d) = points[-1][-1], np.array(numbers).reshape(3, 2)
            points.append(
                (1 - t) ** 3 * a + 3 * (1 - t) ** 2 * t * b + 3 * (1 - t) * t**2 * c + t**3 * d
            )
            numbers = []
    return np.concatenate(points)


# --- Pose --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Pose:
    """How one shoe is seen: from outline units to pixels of the enlarged canvas."""

    shaft: float  # length of a shaft
    instep: float  # a soft bend of all outlines, so that no two shoes are equal
    depth: float  # how far the toe comes towards us: three-quarter views
    turn: float  # radians
    mirrored: bool
    offset: tuple[float, float] = (0.0, 0.0)  # of the second shoe of a pair, in units
    size: float = 1.0
    scale: float = 1.0  # pixels a unit
    origin: tuple[float, float] = (0.0, 0.0)

    def place(self, points: Array) -> Array:
        x, y = points[:, 0].copy(), points[:, 1].copy()
        y = np.where(y < 560, 560 - (560 - y) * self.shaft, y)
        y = y + self.instep * np.sin(x / 1000 * np.pi * 2) * np.clip((800 - y) / 300, 0, 1)
        nearer = self.depth * (500 - x) / 1000
        x = 500 + (x - 500) * (1 + nearer) * (1 - 0.35 * abs(self.depth))
        y = 800 + (y - 800) * (1 + nearer) + 180 * nearer
        x = (x - 500) * self.size + 500 + self.offset[0]
        y = (y - 800) * self.size + 800 + self.offset[1]
        if self.mirrored:
            x = 1000 - x
        cos, sin = np.cos(self.turn), np.sin(self.turn)
        x, y = 500 + (x - 500) * cos - (y - 800) * sin, 800 + (x - 500) * sin + (y - 800) * cos
        return np.stack([x * self.scale + self.origin[0], y * self.scale + self.origin[1]], axis=1)


def _fit(poses: Sequence[_Pose], outline: Array, width: int, height: int) -> list[_Pose]:
    """Scale and move the shoes of a picture, together, so that they fill it but for a margin."""
    placed = np.concatenate([pose.place(outline) for pose in poses])
    low, high = placed.min(axis=0), placed.max(axis=0)
    room = np.array([width, height]) * np.array([0.90, 0.84])
    scale = float((room / (high - low)).min())
    middle = np.array([width, height]) * np.array([0.5, 0.49]) - (low + high) / 2 * scale
    return [
        replace(pose, scale=scale, origin=(float(middle[0]), float(middle[1]))) for pose in poses
    ]


# --- Paint -------------------------------------------------------------------------------------

_PAINT: dict[str, tuple[Color, ...]] = {
    "black": ((0.10, 0.10, 0.11), (0.13, 0.12, 0.12), (0.08, 0.08, 0.10)),
    "white": ((0.95, 0.95, 0.94), (0.96, 0.95, 0.92), (0.93, 0.94, 0.96)),
    "red": ((0.78, 0.08, 0.12), (0.66, 0.05, 0.12), (0.86, 0.16, 0.14)),
    "blue": ((0.12, 0.26, 0.66), (0.10, 0.17, 0.42), (0.30, 0.50, 0.84)),
    "tan": ((0.83, 0.67, 0.46), (0.78, 0.60, 0.40), (0.87, 0.74, 0.56)),
    "grey": ((0.54, 0.55, 0.57), (0.62, 0.62, 0.63), (0.43, 0.44, 0.47)),
    "brown": ((0.38, 0.22, 0.13), (0.32, 0.18, 0.11), (0.45, 0.27, 0.15)),
}
_UNTAGGED: tuple[Color, ...] = ((0.16, 0.45, 0.30), (0.86, 0.55, 0.66), (0.55, 0.35, 0.60))
_DARK_SOLE: Color = (0.17, 0.14, 0.13)
_PALE_SOLE: Color = (0.90, 0.89, 0.86)
_PALE_LACE: Color = (0.93, 0.92, 0.90)
_GREY_LACE: Color = (0.55, 0.52, 0.48)
_DARK_LACE: Color = (0.16, 0.14, 0.13)
_PALE_LINING: Color = (0.80, 0.77, 0.74)
_LINING: Color = (0.74, 0.66, 0.56)
_STEEL: Color = (0.80, 0.79, 0.77)
_GOLD: Color = (0.86, 0.70, 0.36)


class _Canvas:
    """An enlarged picture, or a window of it: float32 (H, W, 3) in 0..1, painted from the back."""

    def __init__(self, pixels: Array, left: int = 0, top: int = 0) -> None:
        self.pixels = pixels
        self._corner = np.array([left, top])

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in enlarged pixels."""
        return self.pixels.shape[1], self.pixels.shape[0]

    def window(self, curves: Sequence[Array], margin: float) -> _Canvas:
        """Return the part around some curves; what is painted there is painted here."""
        points = np.concatenate(curves) - self._corner
        left, top = np.clip(points.min(axis=0) - margin, 0, self.size).astype(int)
        right, bottom = np.clip(points.max(axis=0) + margin + 2, 2, self.size).astype(int)
        left, top = min(left, right - 2), min(top, bottom - 2)
        inner = self.pixels[top:bottom, left:right]
        return _Canvas(inner, left + int(self._corner[0]), top + int(self._corner[1]))

    def area(self, outlines: Iterable[Array]) -> Array:
        """Return the mask (H, W) of filled outlines, 0 or 1."""
        mask = Image.new("L", self.size)
        draw = ImageDraw.Draw(mask)
        for outline in outlines:
            draw.polygon([(float(x), float(y)) for x, y in outline - self._corner], fill=255)
        return np.asarray(mask, dtype=np.float32) / 255

    def lines(self, curves: Iterable[Array], width: float) -> Array:
        """Return the mask (H, W) of lines with round ends, `width` in pixels."""
        mask = Image.new("L", self.size)
        draw = ImageDraw.Draw(mask)
        for curve in curves:
            points = [(float(x), float(y)) for x, y in curve - self._corner]
            draw.line(points, fill=255, width=max(1, round(width)), joint="curve")
            for x, y in (points[0], points[-1]):
                r = width / 2
                draw.ellipse((x - r, y - r, x + r, y + r), fill=255)
        return np.asarray(mask, dtype=np.float32) / 255

    def paint(self, mask: Array, color: Color | Array, opacity: float = 1.0) -> None:
        alpha = (mask * opacity)[..., None]
        self.pixels += (np.asarray(color, dtype=np.float32) - self.pixels) * alpha

    def darken(self, mask: Array, amount: float) -> None:
        self.pixels *= 1 - amount * mask[..., None]

    def picture(self) -> Image.Image:
        pixels = (np.clip(self.pixels, 0, 1) * 255 + 0.5).astype(np.uint8)
        return Image.fromarray(pixels).reduce(_FINE)


def _resize(field: Array, width: int, height: int) -> Array:
    image = Image.fromarray(np.ascontiguousarray(field, dtype=np.float32))
    return np.asarray(image.resize((width, height), Image.Resampling.BICUBIC))


def _blur(field: Array, radius: float) -> Array:
    """Blur a mask (H, W) by about `radius` pixels."""
    height, width = field.shape
    step = int(radius / 4)
    if step < 2:  # Pillow's is quick, but its 256 levels would show in a wide blur's slope
        image = Image.fromarray((np.clip(field, 0, 1) * 255 + 0.5).astype(np.uint8))
        return np.asarray(image.filter(ImageFilter.GaussianBlur(radius)), dtype=np.float32) / 255
    small = _resize(field, max(1, width // step), max(1, height // step))
    reach = max(1, round(radius / step))
    for axis in (0, 1):
        for _ in range(3):
            pad = [(reach + 1, reach) if a == axis else (0, 0) for a in (0, 1)]
            total = np.cumsum(np.pad(small, pad, mode="edge"), axis=axis, dtype=np.float64)
            ends = np.take(total, range(2 * reach + 1, total.shape[axis]), axis=axis)
            starts = np.take(total, range(total.shape[axis] - 2 * reach - 1), axis=axis)
            small = ((ends - starts) / (2 * reach + 1)).astype(np.float32)
    return _resize(small, width, height)


def _noise(shape: tuple[int, ...], cell: float, rng: np.random.Generator) -> Array:
    """Return smooth noise (H, W) of about -1..1 whose bumps are `cell` pixels wide."""
    height, width = shape[:2]
    coarse = rng.normal(0, 0.6, (int(height / cell) + 3, int(width / cell) + 3))
    return _resize(coarse, width, height)


def _light(mask: Array, radius: float) -> Array:
    """Return how far a puffed-up area (H, W) faces the lamp, upper left: about -1..1."""
    down, right = np.gradient(_blur(mask, radius))
    lit: Array = (0.5 * right + 0.87 * down) * radius * 2.2
    return lit


def _dashes(curve: Array, dash: float, gap: float) -> list[Array]:
    """Cut a curve into stitches."""
    steps = np.hypot(*np.diff(curve, axis=0).T)
    along = np.concatenate([[0], np.cumsum(steps)])
    starts = np.arange(gap, along[-1] - dash, dash + gap)
    ends = np.stack([starts, starts + dash], axis=1)
    return [np.stack([np.interp(e, along, curve[:, i]) for i in (0, 1)], axis=1) for e in ends]


def _spaced(curve: Array, distance: float) -> Array:
    """Return points (N, 2) at equal distances on a curve."""
    return np.array([dash.mean(axis=0) for dash in _dashes(curve, distance * 0.5, distance * 0.5)])


def _pattern(shape: tuple[int, ...], unit: float, rng: np.random.Generator) -> Array:
    """Return a fabric's pattern (H, W), 0..1; `unit` is pixels an outline unit."""
    y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float32) / np.float32(unit)
    angle = rng.uniform(-0.25, 0.25)
    x, y = x * np.cos(angle) - y * np.sin(angle), x * np.sin(angle) + y * np.cos(angle)
    kind = rng.integers(6)
    period = rng.uniform(74, 104)
    if kind == 0:  # dots, every other row shifted
        row = np.floor(y / period * 1.15)
        u = (x / period + 0.5 * (row % 2)) % 1 - 0.5
        v = (y / period * 1.15) % 1 - 0.5
        return np.asarray(np.hypot(u, v) < 0.29, dtype=np.float32)
    if kind == 1:  # stripes
        return np.asarray(((x + 0.6 * y) / period) % 1 < 0.45, dtype=np.float32)
    if kind == 2:  # check
        wide = ((x / period) % 1 < 0.5) * 0.5 + ((y / period) % 1 < 0.5) * 0.5
        thin = ((x / period + 0.22) % 1 < 0.08) | ((y / period + 0.22) % 1 < 0.08)
        return np.asarray(np.maximum(wide, thin), dtype=np.float32)
    if kind == 3:  # zigzag
        wave = np.abs((x / period) % 1 - 0.5) * 0.9
        return np.asarray((y / period * 1.1 + wave) % 1 < 0.42, dtype=np.float32)
    if kind == 4:  # leopard: rings, broken by noise
        rough = _noise(shape, 30 * unit, rng) * 0.13
        row = np.floor(y / period * 1.1)
        u = (x / period + 0.5 * (row % 2) + rough) % 1 - 0.5
        v = (y / period * 1.1 + rough) % 1 - 0.5
        ring = np.abs(np.hypot(u, v) - 0.29) < 0.10
        return np.asarray(ring & (_noise(shape, 22 * unit, rng) > -0.42), dtype=np.float32)
    row = np.floor(y / period)  # flowers
    u = (x / period + 0.5 * (row % 2)) % 1 - 0.5
    v = (y / period) % 1 - 0.5
    radius, turn = np.hypot(u, v), np.arctan2(v, u)
    petals = radius < 0.27 + 0.13 * np.cos(5 * turn + row)
    return np.asarray(petals & (radius > 0.09), dtype=np.float32)


def _jitter(color: Color, rng: np.random.Generator) -> Color:
    r, g, b = np.clip(np.array(color) * rng.uniform(0.92, 1.06) + rng.normal(0, 0.008, 3), 0, 1)
    return float(r), float(g), float(b)


def _shaded(color: Color, factor: float) -> Color:
    r, g, b = (min(1.0, c * factor) for c in color)
    return r, g, b


def _brightness(color: Color) -> float:
    return 0.3 * color[0] + 0.59 * color[1] + 0.11 * color[2]


def _contrasting(color: Color, rng: np.random.Generator) -> Color:
    """Return a lighter or darker tone of the same hue, so that a pattern adds no colour tag."""
    bright = _brightness(color)
    if bright < 0.2:
        return _jitter((0.62, 0.60, 0.58), rng)
    if bright > 0.8:
        return _jitter((0.66, 0.68, 0.72), rng)
    if bright > 0.5:
        return _shaded(color, 0.55)
    r, g, b = (min(1.0, 1.7 * c) for c in color)
    return r + (1 - r) * 0.3, g + (1 - g) * 0.3, b + (1 - b) * 0.3


@dataclass(frozen=True)
class _Look:
    """Colours and materials of a picture, the same for both shoes of a pair."""

    main: Color
    second: Color | None
    pattern: Color | None
    sole: Color
    metal: Color
    shiny: bool
    leather: bool
    studded: bool
    grain: int  # seed of the textures


def _choose_look(tags: frozenset[str], shape: _Shape, rng: np.random.Generator) -> _Look:
    # The first colour of a set cannot be known: the one that comes first in a shuffle is main.
    named = [c for c in COLORS if c in tags]
    rng.shuffle(named)
    shades = [_jitter(_PAINT[c][rng.integers(3)], rng) for c in named]
    if not shades:
        shades = [_jitter(_UNTAGGED[rng.integers(len(_UNTAGGED))], rng)]
    main, second = shades[0], shades[1] if len(shades) > 1 else None
    patterned = "patterned" in tags
    dark = _shaded(_DARK_SOLE, rng.uniform(0.8, 1.5))
    return _Look(
        main=main,
        second=None if patterned else second,
        pattern=(second or _contrasting(main, rng)) if patterned else None,
        sole=_jitter(_PALE_SOLE, rng) if shape.pale_sole else dark,
        metal=_GOLD if rng.random() < 0.4 else _STEEL,
        shiny="shiny" in tags,
        leather="leather" in tags,
        studded="studded" in tags,
        grain=int(rng.integers(2**31)),
    )


class _Painter:
    """Paints one shoe, part by part, on a canvas."""

    def __init__(self, canvas: _Canvas, shape: _Shape, pose: _Pose, look: _Look) -> None:
        self._canvas, self._shape, self._pose, self._look = canvas, shape, pose, look
        self._unit = pose.scale * pose.size
        self._rng = np.random.default_rng(look.grain)

    def paint(self) -> None:
        shape, look = self._shape, self._look
        self._cast_shadow()
        for far in self._curves(shape.far):
            self._solid([far], _shaded(look.main, 0.62), 26)
        if shape.inside:
            self._inside()
        for sole in self._curves(shape.sole):
            self._solid([sole], look.sole, 16)
        for heel in self._curves(shape.heel):
            self._cover([heel], look.second or _shaded(look.main, 0.86), plain=True)
        if len(shape.upper) == 1:
            self._cover(self._curves(shape.upper), look.main)
        else:  # straps: every other one in the second colour
            for number, strap in enumerate(self._curves(shape.upper)):
                self._cover([strap], (look.second if number % 2 else None) or look.main)
        self._details()

    def _curves(self, paths: Iterable[str]) -> list[Array]:
        return [self._pose.place(_curve(path)) for path in paths]

    def _cast_shadow(self) -> None:
        for path, blur, amount in ((_WIDE_SHADOW, 34, 0.30), (_CONTACT_SHADOW, 10, 0.40)):
            spot = self._curves([path])
            canvas = self._canvas.window(spot, 4 * blur * self._unit)
            canvas.darken(_blur(canvas.area(spot), blur * self._unit), amount)

    def _solid(self, outlines: list[Array], color: Color, radius: float) -> None:
        """Fill with one colour, softly lit."""
        canvas = self._canvas.window(outlines, 2 * radius * self._unit)
        mask = canvas.area(outlines)
        lit = _light(mask, radius * self._unit)
        shade = np.clip(1 + 0.42 * lit, 0.35, 1.5)[..., None] * np.asarray(color, np.float32)
        canvas.paint(mask, shade + 0.05 * np.clip(lit, 0, 1)[..., None])

    def _inside(self) -> None:
        opening = self._curves(self._shape.inside)
        canvas = self._canvas.window(opening, 60 * self._unit)
        mask = canvas.area(opening)
        deep = 1 - _blur(mask, 30 * self._unit)
        tone = _LINING if _brightness(self._look.main) < 0.75 else _PALE_LINING
        canvas.paint(mask, (0.38 + 0.5 * deep)[..., None] * np.asarray(tone, np.float32))

    def _cover(self, outlines: list[Array], color: Color, *, plain: bool = False) -> None:
        """Fill with the upper's material: panels (unless plain), pattern, light, texture, gloss."""
        look, unit, rng = self._look, self._unit, self._rng
        canvas = self._canvas.window(outlines, 100 * unit)
        mask = canvas.area(outlines)
        cloth = np.empty_like(canvas.pixels)
        cloth[:] = color
        edges = np.zeros_like(mask)
        for panel in [] if plain else self._curves(self._shape.panels):
            inner = canvas.area([panel])
            tone = np.asarray(look.second or _shaded(color, 0.9), np.float32)
            cloth += (tone - cloth) * inner[..., None]
            edges += _light(inner, 5 * unit)
        if look.pattern is not None:
            woven = _pattern(mask.shape, unit, np.random.default_rng(look.grain))
            cloth += (np.asarray(look.pattern, np.float32) - cloth) * woven[..., None]

        form, rim = _light(mask, 62 * unit), _light(mask, 12 * unit)
        shade = 1 + 0.40 * form + 0.22 * rim + 0.22 * np.clip(edges, -1, 1)
        sheen = 0.07 * np.clip(form, 0, 1) + 0.03 * np.clip(rim, 0, 1)
        if look.leather:
            worn = 1 - _blur(mask, 70 * unit)  # darker towards the edges, as if polished
            grain = 0.04 * _noise(mask.shape, 4 * unit, rng)
            grain += 0.03 * _noise(mask.shape, 11 * unit, rng)
            patina = 0.07 * _noise(mask.shape, 90 * unit, rng)
            shade = shade * (1.12 - 0.66 * worn + grain + patina)
            soft = np.exp(-(((form - 0.34) / 0.24) ** 2))
            sheen = sheen + 0.17 * soft * (1 + 6 * grain)
        elif not look.shiny:
            shade = shade + 0.03 * _noise(mask.shape, 3.5 * unit, rng)
        if look.shiny:
            shade = shade * (1 + 0.30 * form)
            wave = form + 0.04 * _noise(mask.shape, 110 * unit, rng)
            broken = np.clip(0.75 + 0.9 * _noise(mask.shape, 150 * unit, rng), 0, 1)
            glint = np.exp(-(((wave - 0.40) / 0.085) ** 2))
            echo = np.exp(-(((wave - 0.13) / 0.05) ** 2))
            bounce = np.exp(-(((wave + 0.42) / 0.09) ** 2))
            sheen = sheen + (0.95 * glint + 0.22 * echo) * broken + 0.20 * bounce
        lit = cloth * np.clip(shade, 0.25, 1.7)[..., None]
        # A highlight replaces the colour below it rather than adding to it.
        lit += (1 - lit) * np.clip(sheen, 0, 1)[..., None]
        outline = np.clip(1 - _blur(mask, 3 * unit), 0, 0.5) * 2
        canvas.paint(mask, lit * (1 - 0.22 * outline[..., None]))

    def _details(self) -> None:
        shape, look, unit = self._shape, self._look, self._unit
        outlines = self._curves(shape.upper)
        canvas = self._canvas.window(outlines, 40 * unit)
        upper = canvas.area(outlines)
        for gore in self._curves(shape.gores):
            ribs = 0.75 + 0.25 * np.sin(np.arange(canvas.size[0]) / unit / 14 * 2 * np.pi)
            tone = np.asarray((0.16, 0.15, 0.15)) * ribs[None, :, None]
            canvas.paint(canvas.area([gore]), tone.astype(np.float32))
        for trim in self._curves(shape.trims):
            around = self._canvas.window([trim], 40 * unit)
            mask, body = around.area([trim]), around.area(outlines)
            around.darken(np.clip(_blur(mask, 7 * unit) - mask, 0, 1) * body, 0.6)
            self._cover([trim], _shaded(look.second or look.main, 0.96), plain=True)
        seams = self._curves(shape.seams)
        if seams:
            canvas.darken(canvas.lines(seams, 4 * unit) * upper, 0.34)
        if look.leather:
            self._age(canvas, upper, seams)
        if shape.laces:
            self._lace(canvas)
        for curve in self._curves(shape.metal):
            self._wire(canvas, [curve], look.metal, 11)
        if look.studded:
            self._stud(canvas)

    def _age(self, canvas: _Canvas, upper: Array, seams: Sequence[Array]) -> None:
        """Add the creases and the stitching of leather."""
        unit = self._unit
        creases = self._curves(self._shape.creases)
        if creases:
            canvas.darken(_blur(canvas.lines(creases, 7 * unit), 4 * unit) * upper, 0.55)
            ridge = _blur(canvas.lines([c + 7 * unit for c in creases], 5 * unit), 4 * unit)
            canvas.paint(ridge * upper, (0.9, 0.85, 0.8), 0.28)
        thread = (0.84, 0.74, 0.55) if _brightness(self._look.main) < 0.5 else (0.45, 0.32, 0.20)
        stitches = [d for s in seams for d in _dashes(s + 7 * unit, 17 * unit, 11 * unit)]
        if stitches:
            canvas.paint(canvas.lines(stitches, 6.5 * unit) * upper, thread)

    def _lace(self, canvas: _Canvas) -> None:
        unit = self._unit
        (curve,) = self._curves([self._shape.laces])
        tone = _PALE_LACE if self._shape.pale_sole else _DARK_LACE
        if abs(_brightness(self._look.main) - _brightness(tone)) < 0.15:
            tone = _GREY_LACE
        across = np.array([-30.0 if self._pose.mirrored else 30.0, 14.0]) * unit
        cords = [np.stack([p - across, p + across]) for p in _spaced(curve, 44 * unit)]
        canvas.darken(_blur(canvas.lines(cords, 16 * unit), 4 * unit), 0.35)
        self._wire(canvas, cords, tone, 13)

    def _wire(self, canvas: _Canvas, curves: list[Array], color: Color, width: float) -> None:
        """Draw round cords or bars."""
        unit = self._unit
        mask = canvas.lines(curves, width * unit)
        canvas.darken(np.clip(_blur(mask, 3 * unit) - 0.3 * mask, 0, 1), 0.35)
        shade = np.clip(1 + 0.5 * _light(mask, 3 * unit), 0.4, 1.4)
        canvas.paint(mask, shade[..., None] * np.asarray(color, np.float32))

    def _stud(self, canvas: _Canvas) -> None:
        unit = self._unit
        points = np.concatenate([_spaced(c, 46 * unit) for c in self._curves(self._shape.studs)])
        turn = np.linspace(0, 2 * np.pi, 24)
        circle = np.stack([np.cos(turn), np.sin(turn)], axis=1) * unit

        def dots(radius: float, shift: float) -> Array:
            return canvas.area([point - shift * unit + circle * radius for point in points])

        canvas.darken(_blur(dots(17, -3), 3 * unit), 0.55)
        canvas.paint(dots(15, 0), _shaded(self._look.metal, 0.62))
        canvas.paint(dots(12, 1.5), self._look.metal)
        canvas.paint(dots(5, 4.5), (1.0, 1.0, 1.0))


def draw_shoe(tags: frozenset[str], rng: np.random.Generator, size: tuple[int, int]) -> Image.Image:
    """Draw a shoe, or a pair, that shows exactly `tags`; RGB, `size` = (width, height) pixels.

    The same tags and generator state give the same picture. Combinations that no shoe has (a
    flat with a shaft) give the nearest that there is; ValueError for a tag that is not in TAGS.
    """
    unknown = tags - set(TAGS)
    if unknown:
        raise ValueError(f"no shoe can be drawn as {', '.join(sorted(unknown))}")
    shape = _choose_shape(tags, rng)
    look = _choose_look(tags, shape, rng)
    first = _Pose(
        shaft=rng.uniform(0.85, 1.5) if shape.tall else 1.0,
        instep=rng.uniform(-16, 16),
        depth=rng.choice([0.0, 0.12, 0.3, 0.45]) * rng.uniform(0.8, 1.2),
        turn=np.radians(rng.normal(0, 3.0)),
        mirrored=bool(rng.random() < 0.5),
    )
    poses = [first]
    if rng.random() < 0.2:
        second = replace(first, offset=(rng.uniform(110, 190), rng.uniform(-110, -60)), size=0.96)
        if rng.random() < 0.4:  # its partner seen from the other side
            second = replace(second, mirrored=not first.mirrored, turn=-first.turn)
        poses = [second, first]
    width, height = size
    backdrop = 1.0 if rng.random() < 0.7 else rng.uniform(0.94, 0.985)
    canvas = _Canvas(np.full((height * _FINE, width * _FINE, 3), backdrop, dtype=np.float32))
    outline = np.concatenate([_curve(p) for p in (*shape.upper, *shape.sole, *shape.heel)])
    for pose in _fit(poses, outline, *canvas.size):
        _Painter(canvas, shape, pose, look).paint()
    return canvas.picture()


# --- The demo's data ---------------------------------------------------------------------------

# How many of 220 pictures are what; about what the article's own sheet has.
_KINDS: dict[tuple[str, ...], int] = {
    ("boot", "above_ankle"): 36,
    ("boot", "heel", "above_ankle"): 34,
    ("boot", "below_ankle"): 8,
    ("heel", "below_ankle"): 40,
    ("sneaker", "below_ankle"): 19,
    ("sneaker", "above_ankle"): 13,
    ("sandal", "below_ankle"): 12,
    ("sandal", "heel", "below_ankle"): 11,
    ("flat", "below_ankle"): 27,
    ("loafer", "below_ankle"): 20,
}
_MAIN_COLORS: dict[tuple[str, ...], int] = {
    ("black",): 100,
    ("white",): 18,
    ("red",): 17,
    ("blue",): 19,
    ("tan",): 20,
    ("grey",): 20,
    ("brown",): 26,
}
_SECOND_COLORS: dict[tuple[str, ...], int] = {
    (): 168,
    ("black",): 14,
    ("white",): 10,
    ("red",): 4,
    ("blue",): 4,
    ("tan",): 7,
    ("grey",): 7,
    ("brown",): 6,
}
# How many are so, and how likely each style is to be so; in this order.
_FINISHES: tuple[tuple[str, int, dict[str, float]], ...] = (
    ("leather", 58, {"boot": 3, "loafer": 3, "sandal": 1.5, "heel": 1, "flat": 1, "sneaker": 0.6}),
    ("shiny", 42, {"heel": 2.5, "flat": 2, "sandal": 1.5, "loafer": 1, "boot": 1, "sneaker": 0.3}),
    ("patterned", 40, {"flat": 2, "sneaker": 2, "heel": 1.5, "loafer": 1, "boot": 1, "sandal": 1}),
    ("studded", 27, {"sandal": 1.5, "boot": 1, "heel": 1, "flat": 1, "loafer": 1, "sneaker": 0.7}),
)
_TOGETHER = {("leather", "shiny"): 0.15, ("leather", "patterned"): 0.0, ("shiny", "patterned"): 0.4}

_SIZES = ((320, 320), (360, 300), (300, 300), (300, 360), (400, 300))
_QUALITY = 84

# Names as pictures from the web have them: each has broken some program.
_ODD_NAMES = (
    "-.jpg_640x640.jpg",
    "118-jcrew.w710.h473.2x.jpg",
    "Tamaris Stövlett - (4147390).jpg",
    "1-1-25121-29 311 Muscat - Tamaris - 4147390 - Women s Shoes.jpg",
    "new in, week 12.jpg",
    "women's size 38.jpg",
    "'quoted'.jpg",
    "zapato de niña.jpg",
    "ботинки 7.jpg",
    "靴 12.jpg",
    "au%2FWomens%2FShoes%2FHA5W_00-JET_1.jpg.jpg",
    "10272458_fpx.JPG",
    "shoe no. 5 [side] #2.jpeg",
    "a;b.jpg",
    "_104055634.jpg",
    "café crème & co, 50% off!.jpg",
    "Größe 41.jpg",
    "~pump 4.jpg",
    "1e5.jpg",
    "two  spaces.jpg",
)


def _dealt(
    shares: dict[tuple[str, ...], int], count: int, rng: np.random.Generator
) -> list[tuple[str, ...]]:
    """Return `count` keys in random order, as often as their shares say."""
    bounds = np.cumsum(list(shares.values()))
    places = np.searchsorted(bounds, (np.arange(count) + 0.5) / count * bounds[-1], side="right")
    keys = list(shares)
    return [keys[place] for place in rng.permutation(places)]


def _draw_tags(count: int, rng: np.random.Generator) -> list[frozenset[str]]:
    """Return the tags of `count` pictures."""
    dealt = (_dealt(shares, count, rng) for shares in (_KINDS, _MAIN_COLORS, _SECOND_COLORS))
    pictures = [set(kind + main + second) for kind, main, second in zip(*dealt, strict=True)]
    for finish, many, likely in _FINISHES:
        weights = np.array(
            [
                max(likely[tag] for tag in tags if tag in likely)
                * np.prod([_TOGETHER.get((tag, finish), 1.0) for tag in tags])
                for tags in pictures
            ]
        )
        chosen = min(round(many * count / 220), int((weights > 0).sum()))
        for position in rng.choice(count, chosen, replace=False, p=weights / weights.sum()):
            pictures[position].add(finish)
    return [frozenset(tags) for tags in pictures]


def _names(count: int, rng: np.random.Generator) -> list[str]:
    """Return `count` different file names, up to a tenth of them odd ones."""
    names = list(_ODD_NAMES[: count // 10])
    for number in range(count - len(names)):
        digits = int(rng.integers(10**6, 10**7))
        plain = (
            f"shoe_{number:04d}.jpg",
            f"{digits}{number:03d}_fpx.jpg",
            f"IMG_{7000 + number}.jpg",
            f"shoes-{number:03d}-Side_large.jpg",
            f"61K{digits}._SY{number:03d}_.jpg",
        )
        names.append(plain[rng.integers(len(plain))])
    return names


def _jpeg(tags: frozenset[str], rng: np.random.Generator) -> bytes:
    sizes = _SIZES if "above_ankle" in tags else (*_SIZES[:3], _SIZES[4])
    picture = draw_shoe(tags, rng, sizes[rng.integers(len(sizes))])
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=_QUALITY, optimize=True)
    return buffer.getvalue()


def write_samples(data: Path, count: int = 220, seed: int = 220) -> None:
    """Draw `count` labelled pictures: data/images/ and data/labels.csv, the same for a seed.

    Raises ShoetaggerError, and writes nothing, where either is there already.
    """
    sheet, images = data / "labels.csv", data / "images"
    for there in (sheet, images):
        if there.exists():
            raise ShoetaggerError(f"{there} is there already: name an empty folder, or remove it")
    rng = np.random.default_rng(seed)
    pictures = sorted(zip(_names(count, rng), _draw_tags(count, rng), strict=True))
    images.mkdir(parents=True)
    for name, tags in tqdm(pictures, desc="drawing shoes", unit="picture", disable=None):
        (images / name).write_bytes(_jpeg(tags, rng))
    with sheet.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("image_name", *TAGS))
        writer.writerows(
            [name, *("1" if t in tags else "" for t in TAGS)] for name, tags in pictures
        )


def write_arrivals(
    folder: Path, count: int, seed: int, *, with_bad: bool = False
) -> dict[Path, frozenset[str]]:
    """Draw `count` new pictures into `folder`, named after `seed`; return what each one shows.

    `with_bad` adds three files that are no pictures, which the result leaves out: a truncated
    JPEG, a text and an empty file. Equal files of an earlier call are written again.
    """
    rng = np.random.default_rng((seed, 1))
    folder.mkdir(parents=True, exist_ok=True)
    odd = (f"week {seed}, no. 1.jpg", f"l'été {seed}.jpg", f"Größe {seed}.JPG")
    shown: dict[Path, frozenset[str]] = {}
    for number, tags in enumerate(_draw_tags(count, rng)):
        plain = f"arrival-{seed}-{number:03d}.jpg"
        path = folder / (odd[number // 5] if number % 5 == 4 and number < 15 else plain)
        path.write_bytes(_jpeg(tags, rng))
        shown[path] = tags
    if with_bad:
        whole = _jpeg(frozenset({"red", "boot"}), rng)
        bad = {
            f"truncated-{seed}.jpg": whole[: len(whole) // 2],
            f"text-{seed}.jpg": b"This is no picture, whatever its name says.\n",
            f"empty-{seed}.jpg": b"",
        }
        for name, content in bad.items():
            (folder / name).write_bytes(content)
            # Old enough that nobody waits for the rest to arrive.
            an_hour_ago = time.time() - 3600
            os.utime(folder / name, (an_hour_ago, an_hour_ago))
    return shown


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the demo's data, or with --arrivals new pictures without labels."""
    parser = argparse.ArgumentParser(prog="python -m shoetagger.sample", description=main.__doc__)
    parser.add_argument("folder", type=Path, help="data/, or with --arrivals an inbox")
    parser.add_argument("--count", type=int, default=220, help="pictures (default: 220)")
    parser.add_argument("--seed", type=int, default=220, help="another seed draws other shoes")
    parser.add_argument("--arrivals", action="store_true", help="pictures alone, no label sheet")
    parser.add_argument("--with-bad", action="store_true", help="with --arrivals: 3 broken files")
    given = parser.parse_args(arguments)
    try:
        if given.arrivals:
            write_arrivals(given.folder, given.count, given.seed, with_bad=given.with_bad)
        else:
            write_samples(given.folder, given.count, given.seed)
    except ShoetaggerError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
