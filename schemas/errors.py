"""The error classes of the factory. A message says what was given and what is allowed, in one sentence."""

import signal


class FactoryError(Exception):
    """Something that the user can fix; shown without a traceback."""


class RecipeError(FactoryError):
    """A recipe that cannot be built. The message names the file, the line, the key and what is allowed."""


class InputError(FactoryError):
    """Input data that cannot be read: a missing file or column, a row of the wrong shape."""


class EngineError(FactoryError):
    """A model or server that cannot be used: no weights, the wrong task, an engine that keeps dying."""


class WarehouseError(FactoryError):
    """A warehouse that cannot be opened, read or written: wrong version, no space, no permission, damaged data."""


class MissingPackageError(FactoryError):
    """A command needs a package that only an optional extra installs."""


class HeldError(WarehouseError):
    """Another process holds something that only one may hold at a time."""


class NothingToExportError(WarehouseError):
    """A build has no rows of the kinds that its recipe exports."""


class AuditError(FactoryError):
    """A build whose audits found offending rows."""


class TrainingError(FactoryError):
    """A training run that cannot start or continue: settings, model or data that do not match, a loss that is NaN."""


class BuildStoppedError(FactoryError):
    """The user asked the build to stop, by the signal ``number``; what was answered is committed."""

    number = int(signal.SIGINT)
