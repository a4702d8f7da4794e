package outcome_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"leadpipe/internal/outcome"
)

func TestOf(t *testing.T) {
	t.Parallel()
	cause := errors.New("cause")
	for _, tt := range []struct {
		name   string
		err    error
		kind   outcome.Kind
		reason outcome.Reason
		after  time.Duration
	}{
		{"an error that says nothing is temporary", cause, outcome.KindTemporary, outcome.Internal, 0},
		{"wrapped, a permanent error stays permanent", fmt.Errorf("doing: %w", outcome.Permanent(outcome.Malformed, cause)), outcome.KindPermanent, outcome.Malformed, 0},
		{"the provider's pause is kept", fmt.Errorf("doing: %w", outcome.Retry(outcome.RateLimited, time.Minute, cause)), outcome.KindTemporary, outcome.RateLimited, time.Minute},
		{"the outermost says what to do", outcome.Blocked(outcome.Auth, outcome.Temporary(outcome.Timeout, cause)), outcome.KindBlocked, outcome.Auth, 0},
		{"not yet is no failure", outcome.NotYet(time.Second), outcome.KindNotYet, outcome.Waiting, time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			o := outcome.Of(tt.err)
			if o.Kind != tt.kind || o.Reason != tt.reason || o.After != tt.after {
				t.Errorf("got %+v", o)
			}
			if o.Error() != tt.err.Error() {
				t.Errorf("text %q, want %q", o.Error(), tt.err.Error())
			}
		})
	}
}

func TestPanickedNamesThePlaceAndIsTheSameEveryTime(t *testing.T) {
	t.Parallel()
	texts := map[string]bool{}
	for range 3 {
		func() {
			defer func() { texts[outcome.Panicked(recover()).Error()] = true }()
			var m map[string]*int
			_ = *m["nothing"]
		}()
	}
	if len(texts) != 1 {
		t.Errorf("texts differ: %v", texts)
	}
	for text := range texts {
		if !strings.Contains(text, "outcome_test.go:") || strings.Contains(text, "/") && strings.Contains(text, "0x") {
			t.Errorf("text %q", text)
		}
	}
}
