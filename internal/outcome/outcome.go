// Package outcome says what became of a piece of work, so that one place (bus.settle)
// can decide what happens to the message behind it. An error is one of
//
//   - temporary: another try may succeed; any error that says nothing else is this;
//   - permanent: no retry can help, a person must look;
//   - blocked: the provider refuses us as a whole (an expired token, say), so that
//     every message of the consumer waits and one incident tells of it;
//   - not yet: nothing went wrong, the work is only due later.
package outcome

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"path"
	"runtime"
	"strings"
	"time"
)

// A Reason is why something could not be done: a short fixed list, and the metric
// label of that name.
type Reason string

// The reasons.
const (
	Auth        Reason = "auth"         // credentials refused
	RateLimited Reason = "rate_limited" // told to slow down
	Timeout     Reason = "timeout"      // no answer in time
	Unavailable Reason = "unavailable"  // network, or a 5xx
	Malformed   Reason = "malformed"    // can't be read
	Unknown     Reason = "unknown"      // names something that does not exist
	Refused     Reason = "refused"      // read and understood, and turned down
	Conflict    Reason = "conflict"     // somebody else kept changing the same records
	Panic       Reason = "panic"        // a bug of ours
	Internal    Reason = "internal"     // anything that gave no reason
	Waiting     Reason = "waiting"      // due later
)

// Reasons is all of them.
func Reasons() []Reason {
	return []Reason{Auth, RateLimited, Timeout, Unavailable, Malformed, Unknown, Refused, Conflict, Panic, Internal, Waiting}
}

// Kind is what can be done about an error.
type Kind string

// The kinds.
const (
	KindTemporary Kind = "temporary"
	KindPermanent Kind = "permanent"
	KindBlocked   Kind = "blocked"
	KindNotYet    Kind = "not_yet"
)

// An Error carries what to do with the message whose handling it ended.
type Error struct {
	Kind   Kind
	Reason Reason
	After  time.Duration // at the earliest; 0 leaves it to the schedule of retries
	Err    error         // the private cause; may be nil for KindNotYet
}

func (e *Error) Error() string {
	if e.Err == nil {
		return string(e.Reason)
	}
	return e.Err.Error()
}

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }

// Temporary marks an error that another try may mend.
func Temporary(r Reason, err error) error { return &Error{Kind: KindTemporary, Reason: r, Err: err} }

// Retry is Temporary with the pause that the provider asked for (Retry-After).
func Retry(r Reason, after time.Duration, err error) error {
	return &Error{Kind: KindTemporary, Reason: r, After: after, Err: err}
}

// Permanent marks an error that no retry can mend.
func Permanent(r Reason, err error) error { return &Error{Kind: KindPermanent, Reason: r, Err: err} }

// Permanentf is Permanent with a formatted cause.
func Permanentf(r Reason, format string, args ...any) error {
	return Permanent(r, fmt.Errorf(format, args...))
}

// Blocked marks an error that every other message of the consumer would meet too.
func Blocked(r Reason, err error) error { return &Error{Kind: KindBlocked, Reason: r, Err: err} }

// Panicked makes a permanent error of what recover returned; call it in the deferred
// function. It names the place, and is the same text for the same bug.
func Panicked(recovered any) error {
	pcs := make([]uintptr, 32)
	frames := runtime.CallersFrames(pcs[:runtime.Callers(2, pcs)])
	for thrown := false; ; {
		f, more := frames.Next()
		if thrown && !strings.HasPrefix(f.Function, "runtime.") {
			return Permanentf(Panic, "panic: %v in %s (%s:%d)", recovered, path.Base(f.Function), path.Base(f.File), f.Line)
		}
		thrown = thrown || f.Function == "runtime.gopanic"
		if !more {
			return Permanentf(Panic, "panic: %v", recovered)
		}
	}
}

// NotYet asks for the message again after a while; nothing went wrong.
func NotYet(after time.Duration) error {
	return &Error{Kind: KindNotYet, Reason: Waiting, After: after}
}

// Wait is NotYet where the work waits for something that failed: the reason and the cause
// are told.
func Wait(r Reason, after time.Duration, err error) error {
	return &Error{Kind: KindNotYet, Reason: r, After: after, Err: err}
}

// Pause is how long to wait after an attempt, counted from 1, before the next: it is drawn
// between zero (full jitter) and a ceiling that doubles with every attempt, from a second
// to the longest.
func Pause(attempt int, longest time.Duration) time.Duration {
	ceiling := longest
	if shift := max(attempt-1, 0); shift < 20 {
		ceiling = min(longest, time.Second<<shift)
	}
	return 50*time.Millisecond + rand.N(ceiling)
}

// Of gives an error's outcome; one that carries none is temporary, "internal".
func Of(err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		return &Error{Kind: e.Kind, Reason: e.Reason, After: e.After, Err: err}
	}
	return &Error{Kind: KindTemporary, Reason: Internal, Err: err}
}
