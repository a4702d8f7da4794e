package sms

import "leadpipe/internal/outcome"

// Twilio's error codes, by what they are about. What is in none of these tables concerns
// the one text: its recipient, its words.
// https://www.twilio.com/docs/api/errors

// accounts are faults of the account or its configuration, which every text would meet.
var accounts = map[int]outcome.Reason{
	20003: outcome.Auth,    // wrong credentials
	20005: outcome.Auth,    // account suspended
	20404: outcome.Auth,    // no such account
	21222: outcome.Auth,    // not an account SID
	21224: outcome.Auth,    // not a token
	21212: outcome.Refused, // sender is not valid
	21603: outcome.Refused, // no sender
	21609: outcome.Refused, // the status callback's URL
	21660: outcome.Refused, // sender is somebody else's
	21661: outcome.Refused, // sender can't text
	21701: outcome.Refused, // no such messaging service
	21703: outcome.Refused, // messaging service without a sender
	21704: outcome.Refused,
	21705: outcome.Refused,
	30002: outcome.Auth, // account suspended
}

// senders are about the sender, or about it and this one recipient: a French short code
// does not reach Belgium. While other texts go through it is the latter.
var senders = map[int]bool{
	21606: true, // the sender can't text, or not there
	21612: true, // no route from the sender to the recipient
	21659: true, // the sender is not Twilio's, or not of that country
}

// moments are about now: the same text may be taken in a while.
var moments = map[int]bool{
	14107: true, // too many texts at once
	20429: true, // too many requests
	21267: true, // the sender is being set up
	21611: true, // the sender's queue is full
	30001: true, // the queue overflowed
	30022: true, // the carrier's daily or rate limit
	63018: true, // the channel's rate limit
}
