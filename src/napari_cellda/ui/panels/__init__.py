"""One dock widget per step of the job."""
