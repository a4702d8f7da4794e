package console

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"regexp"

	"leadpipe/internal/phone"
)

// A masked text has no whole phone number in it. Ref, where something was cut, is what
// the page gives back to see the text whole.
type masked struct {
	Text string `json:"t"`
	Ref  string `json:"r,omitempty"`
}

// A sealer makes references. They hold the text itself, encrypted under a key that
// lives as long as the process, so that there is no table to grow.
type sealer struct{ gcm cipher.AEAD }

func newSealer() (*sealer, error) {
	key := make([]byte, 32)
	_, _ = rand.Read(key) // never fails
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("making a cipher: %w", err)
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		return nil, fmt.Errorf("making a cipher: %w", err)
	}
	return &sealer{gcm}, nil
}

func (s *sealer) ref(text string) string {
	nonce := make([]byte, s.gcm.NonceSize())
	_, _ = rand.Read(nonce) // never fails
	return base64.RawURLEncoding.EncodeToString(s.gcm.Seal(nonce, nonce, []byte(text), nil))
}

func (s *sealer) open(ref string) (string, error) {
	b, err := base64.RawURLEncoding.DecodeString(ref)
	if err != nil || len(b) < s.gcm.NonceSize() {
		return "", errors.New("not a reference of this console")
	}
	text, err := s.gcm.Open(nil, b[:s.gcm.NonceSize()], b[s.gcm.NonceSize():], nil)
	if err != nil {
		return "", errors.New("not a reference of this console")
	}
	return string(text), nil
}

var (
	// As written by people and providers: +33 6 39 98 01 02, 06.39.98.01.02.
	written = regexp.MustCompile(`\+\d(?:[ .()/-]{0,2}\d){6,14}|\b00[1-9](?:[ .-]?\d){7,13}\b|\b0[1-9](?:[ .-]?\d\d){4}\b`)
	// The last part of subjects and keys that name a phone.
	named = regexp.MustCompile(`\b((?:inbound|optout|contact|optout_confirmation)\.)(\d{7,15})\b`)
)

// text masks every number in a text.
func (s *sealer) text(text string) masked {
	cut := written.ReplaceAllStringFunc(text, phone.Mask)
	cut = named.ReplaceAllStringFunc(cut, func(m string) string {
		p := named.FindStringSubmatch(m)
		return p[1] + p[2][:3] + "****" + p[2][len(p[2])-4:]
	})
	if cut == text {
		return masked{Text: text}
	}
	return masked{Text: cut, Ref: s.ref(text)}
}

// phone masks what is a number, however it is written.
func (s *sealer) phone(number string) masked {
	if number == "" {
		return masked{}
	}
	return masked{Text: phone.Mask(number), Ref: s.ref(number)}
}
