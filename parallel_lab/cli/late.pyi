# The one list of names: `late.py` reads it at run time, type checkers and editors before.
import torch as torch
from torch import distributed as distributed

from parallel_lab.clinic import diagnose as diagnose
from parallel_lab.clinic import open_case as open_case
from parallel_lab.course.checks import Report as Report
from parallel_lab.course.checks import grade as grade
from parallel_lab.course.checks import hint as hint
from parallel_lab.course.sprints import Race as Race
from parallel_lab.course.sprints import sprint as sprint
from parallel_lab.grading.exercises import EXERCISES as EXERCISES
from parallel_lab.interview.boards import Board as Board
from parallel_lab.interview.boards import answered as answered
from parallel_lab.interview.brier import calibration as calibration
from parallel_lab.interview.brier import drawing as drawing
from parallel_lab.interview.clinic_words import of_case as of_case
from parallel_lab.interview.clinic_words import of_cause as of_cause
from parallel_lab.interview.course_path import path as path
from parallel_lab.interview.course_path import path_page as path_page
from parallel_lab.interview.debugging import Round as Round
from parallel_lab.interview.debugging import begin as begin
from parallel_lab.interview.debugging import check_minutes as check_minutes
from parallel_lab.interview.debugging import program as program
from parallel_lab.interview.judged import cause_words as cause_words
from parallel_lab.interview.judged import chart_parts as chart_parts
from parallel_lab.interview.mock import Mock as Mock
from parallel_lab.interview.night import write_night as write_night
from parallel_lab.interview.prepared import prepare as prepare
from parallel_lab.interview.report import listed as listed
from parallel_lab.interview.report import report as report
from parallel_lab.runtime import LaunchError as LaunchError
from parallel_lab.runtime import choose_device as choose_device
from parallel_lab.runtime import launch as launch
