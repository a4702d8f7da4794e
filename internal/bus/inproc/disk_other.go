//go:build !linux && !darwin

package inproc

import "errors"

// diskSpace is not known here: there is no reserve, and a store at fault is tried again
// now and then.
func diskSpace(string) (free, total uint64, err error) { return 0, 0, errors.ErrUnsupported }
