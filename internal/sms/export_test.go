package sms

import "time"

// Points of the walk at which a test may kill the process.
const (
	Due      = "due"      // before the claim
	Claimed  = "claimed"  // after it
	Answered = "answered" // after the call, before its result is committed
)

// WithGap changes how old a look may be: what the barrier's test takes away.
func WithGap(o *Options, d time.Duration) { o.gap = d }

// WithPoint tells f of each point that a text passes.
func WithPoint(o *Options, f func(point string)) { o.point = f }
