package sms

import (
	"strings"
	"unicode/utf16"
)

// The GSM 03.38 alphabet, and the characters of its extension, which count twice. "ê"
// and "ç" are not in it: a French text with one of them is sent in UCS-2.
const (
	gsm       = "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà"
	extension = "\f^{}\\[~]|€"
)

// Segments says into how many parts a text is cut, each of which is charged, and in
// which encoding it travels: "gsm7" (160 characters alone, 153 a part) or "ucs2" (70
// alone, 67 a part).
func Segments(text string) (n int, encoding string) {
	units := make([]int, 0, len(text)) // what each character takes
	for _, r := range text {
		switch {
		case strings.ContainsRune(gsm, r):
			units = append(units, 1)
		case strings.ContainsRune(extension, r):
			units = append(units, 2)
		default:
			return parts(utf16Units(text), 70, 67), "ucs2"
		}
	}
	return parts(units, 160, 153), "gsm7"
}

func utf16Units(text string) []int {
	var units []int
	for _, r := range text {
		units = append(units, max(1, utf16.RuneLen(r)))
	}
	return units
}

// parts cuts where no character is torn apart.
func parts(units []int, alone, each int) int {
	total, n, room := 0, 1, each
	for _, u := range units {
		total += u
		if u > room {
			n, room = n+1, each
		}
		room -= u
	}
	if total <= alone {
		return 1
	}
	return n
}
