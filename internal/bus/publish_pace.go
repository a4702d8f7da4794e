package bus

import "time"

const (
	// samples is how often either way is tried before one is chosen. The best counts:
	// a disk that pauses once must not decide.
	samples = 3
	// sampleSingles bounds what is sent one by one to see how long it takes, so that
	// seeing it costs nobody more than some milliseconds.
	sampleSingles = 32
	// groupHolds and singleHolds are how long a choice holds. Groups cost a disk that
	// needs none little, one by one costs a disk that syncs three quarters.
	groupHolds, singleHolds = time.Minute, 10 * time.Second
	// configHolds is how long the stream's configuration is taken to stay.
	configHolds = time.Minute
)

// A pace knows which way of storing is faster when many wait: which depends on the
// disk and on sync_interval, and shows only in doing it.
type pace struct {
	group, alone []time.Duration // a message
	chosen       PublishMode     // or ""
	until        time.Time       // of chosen
	configUntil  time.Time
}

// isSingle says whether one by one has been chosen.
func (c *pace) isSingle(now time.Time) bool {
	return c.chosen == PublishSingle && now.Before(c.until)
}

// next is the way in which those that wait are to be sent.
func (c *pace) next(now time.Time) PublishMode {
	if c.chosen != "" && now.Before(c.until) {
		return c.chosen
	}
	if c.chosen != "" {
		c.chosen, c.group, c.alone = "", nil, nil
	}
	if len(c.group) <= len(c.alone) {
		return PublishGroup
	}
	return PublishSingle
}

// add notes how long a message took in one of the two ways.
func (c *pace) add(how PublishMode, each time.Duration, now time.Time) {
	if c.chosen != "" {
		return
	}
	if how == PublishGroup {
		c.group = append(c.group, each)
	} else {
		c.alone = append(c.alone, each)
	}
	if len(c.group) < samples || len(c.alone) < samples {
		return
	}
	if least(c.alone) < least(c.group) {
		c.single(now, singleHolds)
		return
	}
	c.chosen, c.until = PublishGroup, now.Add(groupHolds)
}

// single chooses one by one for a while.
func (c *pace) single(now time.Time, d time.Duration) {
	c.chosen, c.until = PublishSingle, now.Add(d)
}

// asked says whether the stream's configuration is known.
func (c *pace) asked(now time.Time) bool { return now.Before(c.configUntil) }

// config notes whether the stream's configuration speaks for groups.
func (c *pace) config(now time.Time, groups bool) {
	c.configUntil = now.Add(configHolds)
	if !groups {
		c.single(now, configHolds)
		c.configUntil = time.Time{} // asked again when that has ended
	}
}

func least(ds []time.Duration) time.Duration {
	l := ds[0]
	for _, d := range ds {
		l = min(l, d)
	}
	return l
}
