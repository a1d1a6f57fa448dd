"""Is my model calibrated? A page on the predictions of any model: `nacl.report`, `nacl report`."""

from nacl.reporting.build import Report, report
from nacl.reporting.cases import ReportCase
from nacl.reporting.files import CaseFiles, Reading, find_cases, nnunet_labels

__all__ = ["CaseFiles", "Reading", "Report", "ReportCase", "find_cases", "nnunet_labels", "report"]
